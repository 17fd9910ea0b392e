//! Runs `csi-sanity`, the judge of CSI drivers, with nothing skipped by request, and judges its report.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A test that the judge itself has put aside.
const PENDING: &str = "pagination should detect volumes added between pages";

/// Where its programs are; `None` on a machine without them.
pub(crate) fn programs() -> Option<PathBuf> {
    std::env::var_os("TERRACE_TEST_CSI").map(PathBuf::from)
}

/// What is judged, and with what.
#[derive(Debug)]
pub(crate) struct Judged<'a> {
    /// Sockets of the controller and of the node.
    pub(crate) sockets: [&'a Path; 2],
    /// The kubelet's directory.
    pub(crate) kubelet: &'a Path,
    /// A directory for what the judge reads and writes.
    pub(crate) files: &'a Path,
    /// Parameters of every volume, as YAML.
    pub(crate) parameters: &'a str,
    /// What is modified, as YAML.
    pub(crate) mutable: &'a str,
    /// Tests that such a driver cannot have, by the first words of their names.
    pub(crate) skipped: &'a [&'a str],
}

impl Judged<'_> {
    /// Fails unless every test passed, but for those that must be skipped, all of which are.
    pub(crate) fn run(&self, programs: &Path) {
        let report = self.files.join("junit.xml");
        let output = self.command(programs, &report).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        let cases = cases(&fs::read_to_string(&report).unwrap());
        let count = |status: &str| cases.iter().filter(|(_, is)| is == status).count();
        println!(
            "csi-sanity: {} passed, {} failed, {} skipped, {} pending",
            count("passed"),
            count("failed"),
            count("skipped"),
            count("pending")
        );
        let expected = |name: &str| self.skipped.iter().any(|first| name.starts_with(first));
        for (name, status) in &cases {
            let right = match status.as_str() {
                "skipped" => expected(name),
                "pending" => name.contains(PENDING),
                status => status == "passed" && !expected(name),
            };
            assert!(right, "{status}: {name}");
        }
        assert!(cases.len() > 90, "only {} cases ran", cases.len());
    }

    fn command(&self, programs: &Path, report: &Path) -> Command {
        let (parameters, mutable) = (
            self.files.join("parameters.yaml"),
            self.files.join("mutable.yaml"),
        );
        fs::write(&parameters, self.parameters).unwrap();
        fs::write(&mutable, self.mutable).unwrap();
        let [controller, node] = self
            .sockets
            .map(|socket| format!("unix://{}", socket.display()));
        let path = |path: &Path| path.display().to_string();
        let mut command = Command::new(programs.join("csi-sanity"));
        for (name, value) in [
            ("csi.endpoint", node),
            ("csi.controllerendpoint", controller),
            ("csi.mountdir", path(&self.kubelet.join("pods/sanity"))),
            ("csi.stagingdir", path(&self.kubelet.join("pods/staging"))),
            ("csi.testvolumeparameters", path(&parameters)),
            ("csi.testvolumemutableparameters", path(&mutable)),
            ("csi.testvolumesize", (64 << 20).to_string()),
            ("csi.testvolumeexpandsize", (128 << 20).to_string()),
            ("csi.testnodevolumeattachlimit", "true".to_owned()),
            ("ginkgo.junit-report", path(report)),
            ("ginkgo.seed", "7".to_owned()),
            ("ginkgo.no-color", "true".to_owned()),
        ] {
            command.arg(format!("--{name}={value}"));
        }
        command.stdin(Stdio::null());
        command
    }
}

/// Names and results of the report's cases, without the set-up that the judge counts too.
fn cases(report: &str) -> Vec<(String, String)> {
    let attribute = |element: &str, name: &str| {
        let (_, rest) = element.split_once(&format!(" {name}=\""))?;
        Some(rest.split('"').next()?.to_owned())
    };
    let elements = report.split("<testcase").skip(1);
    elements
        .filter_map(|element| {
            let name = attribute(element, "name")?;
            let name = name.strip_prefix("[It] ")?.to_owned();
            Some((name, attribute(element, "status")?))
        })
        .map(|(name, status)| {
            let name = name.strip_prefix("CSI Driver ").unwrap_or(&name);
            (name.replace("&#34;", "\""), status)
        })
        .collect()
}
