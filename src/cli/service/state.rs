//! `state`: export, import and cleanup of a stopped peer's pinset, and a look at its CRDT.

use std::fs::File;
use std::io::{BufRead, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use cluster_compat::config::{Config, Consensus, go_error};
use cluster_compat::types::parse_peer_id;

use super::{Context, prompt, released};
use crate::cli::exit::{Failure, failed, print};
use crate::cli::table::Run;
use crate::consensus::crdt::offline::Overrides;
use crate::daemon::offline::Offline;

/// What is written at once.
const WRITE_BYTES: usize = 256 << 10;

pub(super) async fn export(context: &Context, run: &Run) -> Result<(), Failure> {
    let doing = "exporting state";
    let lock = context.lock()?;
    let result = async {
        let config = load(context).await?;
        check_datastore(&config, doing)?;
        refuse_foreign_pins(&config)?;
        let out = output(run.flags.string("file"))?;
        let n_pins = open(&config)?.export(out).map_err(failed(doing))?;
        tracing::info!(target: "service", n_pins, "state successfully exported");
        Ok(())
    };
    let result = result.await;
    released(lock, result)
}

pub(super) async fn import(context: &Context, run: &Run) -> Result<(), Failure> {
    let lock = context.lock()?;
    let mut input = std::io::stdin().lock();
    let question = "The pinset (state) of this peer will be replaced. Continue?";
    let result = if run.flags.bool("force") || prompt::confirm(question, &mut input) {
        replace(context, run, input).await
    } else {
        Ok(())
    };
    released(lock, result)
}

async fn replace(context: &Context, run: &Run, input: impl BufRead) -> Result<(), Failure> {
    let doing = "importing state";
    let config = load(context).await?;
    let path = run.args.first().filter(|path| !path.is_empty()).map(PathBuf::from);
    let reader: Box<dyn Read + '_> = match path {
        Some(path) => Box::new(open_import(&path)?),
        None => {
            print("reading from stdin, Ctrl-D to finish\n");
            Box::new(input)
        }
    };
    check_datastore(&config, doing)?;
    let peers = run.flags.string("allocations").split(',');
    let overrides = Overrides {
        replication_factor_min: run.flags.int("replication-min"),
        replication_factor_max: run.flags.int("replication-max"),
        // Words that are no peer ids are dropped, as the reference does.
        allocations: peers.filter_map(|peer| parse_peer_id(peer).ok()).collect(),
    };
    let n_pins = open(&config)?.import(reader, &overrides).map_err(failed(doing))?;
    let message = "state successfully imported.  Make sure all peers have consistent states";
    tracing::info!(target: "service", n_pins, "{message}");
    Ok(())
}

pub(super) async fn cleanup(context: &Context, run: &Run) -> Result<(), Failure> {
    let doing = "cleaning state";
    let lock = context.lock()?;
    let question = "The peer state will be removed.  Existing pins may be lost. Continue?";
    let result = async {
        if !run.flags.bool("force") && !prompt::confirm(question, &mut std::io::stdin().lock()) {
            return Ok(());
        }
        let config = load(context).await?;
        check_datastore(&config, doing)?;
        open(&config)?.clean().map_err(failed(doing))?;
        tracing::info!(target: "service", "data correctly cleaned up");
        Ok(())
    };
    let result = result.await;
    released(lock, result)
}

/// `state crdt info`, `dot`, `mark-dirty` and `mark-clean`.
pub(super) async fn crdt(context: &Context, run: &Run, command: &str) -> Result<(), Failure> {
    let (config, _) = context.load().await?;
    if config.consensus() != Some(Consensus::Crdt) {
        let cause = "crdt subcommands can only be run on peers initialized with crdt consensus";
        return Err(Failure::new("", cause));
    }
    let lock = context.lock()?;
    let result = look(&config, run, command);
    released(lock, result)
}

fn look(config: &Config, run: &Run, command: &str) -> Result<(), Failure> {
    check_datastore(config, "creating datastore")?;
    let doing = "creating crdt node";
    match command {
        "info" => {
            let info = open(config)?.info().map_err(failed(doing))?;
            let heads: Vec<String> = info.heads.iter().map(ToString::to_string).collect();
            print(&format!(
                "Number of heads: {}. Current max-height: {}. Dirty: {}\nHeads: [{}]",
                heads.len(),
                info.max_height,
                info.is_dirty,
                heads.join(" ")
            ));
        }
        "dot" => {
            let out = output(run.flags.string("file"))?;
            open(config)?.dot(out).map_err(failed("generating graph"))?;
        }
        "mark-dirty" => {
            open(config)?.mark_dirty(true).map_err(failed(doing))?;
            print("Datastore marked 'dirty'\n");
        }
        _ => {
            open(config)?.mark_dirty(false).map_err(failed(doing))?;
            print("Datastore marked 'clean'\n");
        }
    }
    Ok(())
}

/// Loads a configuration whose consensus has a state that can be opened here.
async fn load(context: &Context) -> Result<Config, Failure> {
    let (config, _) = context.load().await?;
    let doing = "creating state manager";
    match config.consensus() {
        Some(Consensus::Crdt) => Ok(config),
        Some(Consensus::Raft) => Err(Failure::new(doing, "consensus.raft is not served yet")),
        None => Err(Failure::new(doing, "could not determine the consensus component")),
    }
}

/// Refuses a configuration that names no datastore, or several.
fn check_datastore(config: &Config, doing: &str) -> Result<(), Failure> {
    match config.datastore.present() {
        Some(_) => Ok(()),
        None => Err(Failure::new(doing, "unknown datastore")),
    }
}

/// Refuses to export nothing where the pins are those of the original program, which we cannot read.
fn refuse_foreign_pins(config: &Config) -> Result<(), Failure> {
    if config.datastore.lmdb.path(&config.folder).exists() {
        return Ok(());
    }
    let name = config.datastore.present();
    let folders = config.datastore.reference_folders(&config.folder);
    match folders.into_iter().find(|(engine, folder)| Some(*engine) == name && folder.is_dir()) {
        None => Ok(()),
        Some((_, folder)) => Err(Failure::new(
            "exporting state",
            format!(
                "the pins in {} are kept by the original ipfs-cluster-service: export them with that program, then \
                 import the file with this one",
                folder.display()
            ),
        )),
    }
}

fn open(config: &Config) -> Result<Offline, Failure> {
    Offline::open(config).map_err(failed("opening datastore"))
}

fn open_import(path: &Path) -> Result<File, Failure> {
    let file = File::open(path)
        .map_err(|reason| Failure::new("reading import file", go_error("open", path, &reason)))?;
    if path.is_dir() {
        return Err(Failure::new("importing state", format!("read {}: is a directory", path.display())));
    }
    Ok(file)
}

/// Standard output, or a new file.
fn output(path: &str) -> Result<Box<dyn Write>, Failure> {
    if path.is_empty() {
        return Ok(Box::new(BufWriter::with_capacity(WRITE_BYTES, std::io::stdout())));
    }
    let created = File::create(path);
    let file = created
        .map_err(|reason| Failure::new("creating output file", go_error("open", Path::new(path), &reason)))?;
    Ok(Box::new(BufWriter::with_capacity(WRITE_BYTES, file)))
}

#[cfg(test)]
mod tests {
    use cluster_compat::config::{Engine, Env};

    use super::*;

    #[test]
    fn a_folder_with_pins_of_the_original_is_not_exported_as_empty() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::init(Consensus::Crdt, Engine::Pebble, folder.path(), &Env::default()).unwrap();
        assert_eq!(refuse_foreign_pins(&config), Ok(()));
        std::fs::create_dir(folder.path().join("pebble")).unwrap();
        assert!(
            refuse_foreign_pins(&config)
                .unwrap_err()
                .line
                .starts_with("error exporting state: the pins in /")
        );
        std::fs::create_dir(folder.path().join("lmdb")).unwrap();
        assert_eq!(refuse_foreign_pins(&config), Ok(()));
    }
}
