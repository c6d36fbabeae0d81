//! `init`: an identity, and a configuration that points to a URL.

use cluster_compat::config::{Config, Consensus, Engine, Identity, make_folder};

use super::app::{DEFAULT_GATEWAY, NAME};
use super::{Follower, caused, silent};
use crate::cli::exit::{Failure, print, print_error};
use crate::cli::table::Values;

/// Ends in an error where the cluster is there already.
pub(super) fn init(follower: &Follower, flags: &Values, url: &str) -> Result<(), Failure> {
    if url.is_empty() {
        return Err(Failure { line: "configuration URL not provided".to_owned(), code: 1 });
    }
    if follower.folder.exists() {
        print_error(&format!(
            "Configuration for this cluster already exists.\nPlease delete {} if you wish to re-initialize.",
            follower.folder.display()
        ));
        return Err(silent());
    }
    write(follower, flags, url)
}

/// Before a run: a cluster that is there already is good.
pub(super) fn init_unless_there(follower: &Follower, flags: &Values, url: &str) -> Result<(), Failure> {
    if follower.folder.exists() {
        print(&format!(
            "Configuration for this cluster already exists. Skipping initialization.\nIf you wish to \
             re-initialize, simply delete {}\n\n",
            follower.folder.display()
        ));
        return Ok(());
    }
    write(follower, flags, url)
}

fn write(follower: &Follower, flags: &Values, url: &str) -> Result<(), Failure> {
    let source = source(flags.string("gateway"), url);
    let identity = Identity::generate().map_err(|cause| caused(cause, "error generating identity"))?;
    let identity = identity
        .with_env(&follower.env)
        .map_err(|cause| caused(cause, "error applying environment variables to the identity"))?;
    // what is written is the source alone, whatever else stands here
    let mut config = Config::defaults(Consensus::Crdt, Engine::Lmdb, &follower.folder);
    config.source = Some(source);
    let path = follower.identity_json();
    let saving = format!("error saving {}", path.display());
    make_folder(&follower.folder).map_err(|cause| caused(cause, &saving))?;
    identity.save(&path).map_err(|cause| caused(cause, &saving))?;
    print(&format!("Identity written to {}.\n", path.display()));
    let path = follower.service_json();
    config.save(&path).map_err(|cause| caused(cause, &format!("saving {}", path.display())))?;
    let name = &follower.name;
    print(&format!(
        "Configuration written to {}.\nCluster \"{name}\" follower peer initialized.\n\nYou can now use \"{NAME} \
         {name} run\" to start a follower peer for this cluster.\n(Remember to start your IPFS daemon before)\n",
        path.display()
    ));
    Ok(())
}

/// Where the configuration is: the URL itself, or a name at a gateway. A gateway without a scheme stays so; who fetches
/// takes it for HTTP.
fn source(gateway: &str, url: &str) -> String {
    if url.starts_with("http://") || url.starts_with("https://") {
        return url.to_owned();
    }
    print(&format!(
        "{url} will be assumed to be an DNSLink-powered address: /ipns/{url}.\nIt will be resolved using the local \
         IPFS daemon's gateway ({gateway}).\nIf this is not the case, specify the full url starting with http:// or \
         https://.\n(You can override the gateway URL by setting IPFS_GATEWAY)\n\n"
    ));
    at_gateway(gateway, url)
}

fn at_gateway(gateway: &str, name: &str) -> String {
    let gateway = if gateway.is_empty() { DEFAULT_GATEWAY } else { gateway };
    let gateway = gateway.trim_end_matches('/');
    if name.starts_with("/ipfs/") || name.starts_with("/ipns/") {
        format!("{gateway}{name}")
    } else {
        format!("{gateway}/ipns/{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_at_the_gateway() {
        for (gateway, name, expected) in [
            ("127.0.0.1:8080", "example.org", "127.0.0.1:8080/ipns/example.org"),
            ("http://gw/", "example.org", "http://gw/ipns/example.org"),
            ("", "k51", "127.0.0.1:8080/ipns/k51"),
            ("http://gw", "/ipfs/bafy/x", "http://gw/ipfs/bafy/x"),
            ("http://gw", "/ipns/x.org", "http://gw/ipns/x.org"),
        ] {
            assert_eq!(at_gateway(gateway, name), expected);
        }
    }
}
