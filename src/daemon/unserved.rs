//! What can be configured and is not served yet. It is refused by the name of its key, never ignored.

use cluster_compat::config::Config;

/// The first key that asks for something this version does not have.
pub(super) fn check(config: &Config) -> Result<(), String> {
    let asks = [("consensus.raft", config.raft.present, "raft consensus")];
    match asks.into_iter().find(|(_, is_asked, _)| *is_asked) {
        Some((key, _, what)) => Err(format!("{key} is set, but {what} is not supported yet by this version")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use cluster_compat::config::{Config, Consensus, Engine, Env};

    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> String {
        let mut config = config();
        change(&mut config);
        check(&config).unwrap_err()
    }

    fn config() -> Config {
        Config::init(Consensus::Crdt, Engine::Lmdb, std::path::Path::new("/"), &Env::default()).unwrap()
    }

    #[test]
    fn the_default_configuration_is_served_and_what_is_not_is_refused_by_its_key() {
        check(&config()).unwrap();
        let refusal = refused(|config| config.raft.present = true);
        assert!(refusal.starts_with("consensus.raft is set, but "), "{refusal}");
    }
}
