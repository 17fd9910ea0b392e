//! What every whole-system test needs: nodes of its own, the real servers, data, and an honest skip.
//!
//! A test takes a [`node::Node`] (hot directory, run directory, keeper and worker of its own), so
//! tests run side by side and clean up after themselves, also when they fail or hang.

mod ability;
pub(crate) mod catalog;
pub(crate) mod data;
pub(crate) mod hdfs;
pub(crate) mod http;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod numbers;
pub(crate) mod proxy;
pub(crate) mod s3;
pub(crate) mod up;

pub(crate) use ability::{cannot_mount, skip};

/// Ends the test with a skip line when this machine cannot mount.
macro_rules! need_mount {
    ($test:literal) => {
        if let Some(why) = crate::support::cannot_mount() {
            crate::support::skip($test, why);
            return;
        }
    };
}

/// The S3 server of this run, or the end of the test with a skip line.
macro_rules! need_s3 {
    ($test:literal) => {
        match crate::support::s3::S3::from_environment() {
            Some(server) => server,
            None => {
                crate::support::skip($test, "no S3 server (TERRACE_TEST_S3 is not set)");
                return;
            }
        }
    };
}

/// The HDFS cluster of this run, or the end of the test with a skip line.
macro_rules! need_hdfs {
    ($test:literal) => {
        match crate::support::hdfs::Hdfs::from_environment() {
            Some(cluster) => cluster,
            None => {
                crate::support::skip($test, "no HDFS (TERRACE_TEST_HDFS is not set)");
                return;
            }
        }
    };
}

pub(crate) use {need_hdfs, need_mount, need_s3};
