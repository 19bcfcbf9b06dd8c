//! How a story becomes two tests.

/// Makes a test `one_process::<story>` and a test `split::<story>` of each story. A story is an
/// `async fn(&mut Fleet) -> Result<()>`.
macro_rules! both_topologies {
    ($($story:ident),* $(,)?) => {
        mod one_process {
            use octroi_tests::harness::fleet::{Fleet, Topology, tell};
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $story() -> anyhow::Result<()> {
                    tell(Fleet::builder(Topology::OneProcess), super::$story).await
                }
            )*
        }

        mod split {
            use octroi_tests::harness::fleet::{Fleet, Topology, tell};
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $story() -> anyhow::Result<()> {
                    tell(Fleet::builder(Topology::Split), super::$story).await
                }
            )*
        }
    };
}

pub(crate) use both_topologies;
