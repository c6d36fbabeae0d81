//! The fake Kubo daemon as a program, for runs against a peer without a daemon of its own: prints where it listens and
//! stays until its standard input ends.

use cluster_compat::testing::kubo::FakeKubo;
use tokio::io::AsyncReadExt;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let kubo = FakeKubo::start().await?;
    println!("{}", kubo.multiaddr());
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    kubo.stop().await;
    Ok(())
}
