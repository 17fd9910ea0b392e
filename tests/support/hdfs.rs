//! HDFS of this run: files in, through WebHDFS.

use super::data::Tree;
use super::http;

/// Where the cluster is.
pub(crate) struct Hdfs {
    /// `hdfs://host:port`
    pub(crate) native: String,
    /// `webhdfs://host:port`
    pub(crate) web: String,
}

impl Hdfs {
    /// None when no cluster runs.
    pub(crate) fn from_environment() -> Option<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Some(Self {
            native: variable("TERRACE_TEST_HDFS")?,
            web: variable("TERRACE_TEST_WEBHDFS")?,
        })
    }

    /// Writes one file, also over an existing one. `path` begins with a slash.
    pub(crate) fn put(&self, path: &str, body: &[u8]) {
        // The NameNode names a DataNode, which takes the bytes.
        let (_, where_to) = self.ask("PUT", path, "CREATE&overwrite=true&noredirect=true");
        let answer: serde_json::Value = serde_json::from_str(&where_to).unwrap();
        let (status, said) = http::request("PUT", answer["Location"].as_str().unwrap(), body);
        assert_eq!(status, 201, "PUT {path}: {said}");
    }

    /// Writes a tree below a directory.
    pub(crate) fn put_tree(&self, root: &str, tree: &Tree) {
        for (path, bytes) in tree {
            self.put(&format!("{root}/{path}"), bytes);
        }
    }

    /// Removes a directory and everything in it.
    pub(crate) fn remove(&self, path: &str) {
        self.ask("DELETE", path, "DELETE&recursive=true");
    }

    fn ask(&self, method: &str, path: &str, operation: &str) -> (u16, String) {
        let host = self.web.strip_prefix("webhdfs://").unwrap();
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .unwrap()
            .unwrap()
            .name;
        let path = http::encode(path);
        let url = format!("http://{host}/webhdfs/v1{path}?op={operation}&user.name={user}");
        http::request(method, &url, b"")
    }
}
