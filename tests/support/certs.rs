//! Certificates of a test: a root of its own, and what it signs. Made with the `openssl` program, so
//! that no key is ever in the repository.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Everything that `openssl req` and `openssl x509` would look for in the machine's configuration.
const SETTINGS: &str = "[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = terrace test\n\
    [root]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign\n\
    [server]\nbasicConstraints = critical, CA:FALSE\nextendedKeyUsage = serverAuth\n\
    subjectAltName = DNS:localhost, IP:127.0.0.1\n\
    [elsewhere]\nbasicConstraints = critical, CA:FALSE\nextendedKeyUsage = serverAuth\n\
    subjectAltName = DNS:elsewhere.test\n";

/// A root, in a directory of the test.
#[derive(Debug)]
pub(crate) struct Root {
    directory: PathBuf,
}

impl Root {
    /// None: this machine has no `openssl`.
    pub(crate) fn new(directory: &Path) -> Option<Self> {
        let found = Command::new("openssl").arg("version").output();
        found.ok().filter(|output| output.status.success())?;
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join("settings"), SETTINGS).unwrap();
        let own = Self {
            directory: directory.to_owned(),
        };
        own.run(&format!(
            "req -x509 {KEY} -config settings -extensions root -days 2 -keyout ca.key -out ca.pem"
        ));
        Some(own)
    }

    /// The root's certificate.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// Signs a new server's certificate for a section of the settings (`server`: localhost); the files
    /// of the certificate and its key.
    pub(crate) fn issue(&self, name: &str, section: &str) -> (PathBuf, PathBuf) {
        self.run(&format!(
            "req -new {KEY} -config settings -keyout {name}.key -out {name}.csr"
        ));
        self.run(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
             -extfile settings -extensions {section} -out {name}.pem"
        ));
        let file = |end: &str| self.directory.join(format!("{name}.{end}"));
        (file("pem"), file("key"))
    }

    fn run(&self, words: &str) {
        let output = Command::new("openssl")
            .args(words.split(' '))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {words}: {said}");
    }
}

/// A new key, unencrypted.
const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
