//! What programs do when they save a model or a checkpoint, unchanged, through Python's own calls: the
//! same system calls as `torch.save`, `numpy.save` and the writer of safetensors make.

use std::fs;
use std::process::Command;

use super::{LOCAL, Staged, durability};
use crate::world::need_mount;

/// Saves in each way and checks what it reads back. The first argument is the directory.
const PROGRAM: &str = r#"
import io, json, mmap, os, pickle, shutil, struct, sys, tempfile, zipfile
home = sys.argv[1]
data = bytes(range(256)) * 4096

def path(name):
    return os.path.join(home, name)

# torch.save: a zip archive, written from its beginning to its end, over the last one.
for step in range(3):
    with open(path("model.pt"), "wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"step": step}))
            archive.writestr("archive/data/0", data)
    with zipfile.ZipFile(path("model.pt")) as archive:
        assert pickle.loads(archive.read("archive/data.pkl")) == {"step": step}
        assert archive.read("archive/data/0") == data

# safetensors: header and tensors into a temporary file of the same directory, synced, renamed.
header = json.dumps({"t": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}).encode()
for step in range(3):
    fd, name = tempfile.mkstemp(dir=home)
    with os.fdopen(fd, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(name, 0o644)
    os.replace(name, path("model.safetensors"))
    with open(path("model.safetensors"), "rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            assert view[8 + len(header):] == data

# numpy.save in its memory-mapped form: sized, mapped, flushed.
with open(path("array.npy"), "w+b") as file:
    file.truncate(len(data))
    with mmap.mmap(file.fileno(), 0) as view:
        view[:] = data
        view.flush()
with open(path("array.npy"), "rb") as file:
    assert file.read() == data

# A checkpoint of many files in a directory that is published by one rename.
for step in range(2):
    os.mkdir(path("step.tmp"))
    for shard in range(4):
        with open(path(f"step.tmp/shard{shard}"), "wb") as file:
            file.write(data)
            os.fsync(file.fileno())
    directory = os.open(path("step.tmp"), os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    os.rename(path("step.tmp"), path(f"step{step}"))
    assert sorted(os.listdir(path(f"step{step}"))) == [f"shard{shard}" for shard in range(4)]
shutil.rmtree(path("step0"))

# A log that is appended to and read by another program.
with open(path("log"), "a") as log:
    for line in range(100):
        log.write(f"line {line}\n")
        log.flush()
        os.fdatasync(log.fileno())
        with open(path("log")) as reader:
            assert len(reader.readlines()) == line + 1

# Copied with its attributes, as cp -p does.
os.utime(path("model.pt"), ns=(1_600_000_000_123_456_789, 1_600_000_000_987_654_321))
shutil.copy2(path("model.pt"), path("copy.pt"))
assert os.stat(path("copy.pt")).st_mtime_ns == 1_600_000_000_987_654_321
"#;

// SEMANTICS S72: without it a training program would have to be changed to save on a volume.
#[test]
fn programs_save_as_they_do_elsewhere() {
    need_mount!("programs_save_as_they_do_elsewhere");
    if Command::new("python3").arg("--version").output().is_err() {
        println!("SKIP programs_save_as_they_do_elsewhere: no python3");
        return;
    }
    let staged = Staged::new(&[LOCAL], &[]);
    let done = Command::new("python3")
        .args(["-c", PROGRAM])
        .arg(&staged.volume.mount)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    let (good, said) = staged.flush(&staged.volume.mount);
    assert!(good, "{said}");
    let names = [
        "model.pt",
        "model.safetensors",
        "array.npy",
        "log",
        "copy.pt",
    ];
    let shards = (0..4).map(|shard| format!("step1/shard{shard}"));
    for name in names.map(str::to_owned).into_iter().chain(shards) {
        assert_eq!(durability(&staged.path(&name)), "shared", "{name}");
        let (here, below) = (fs::read(staged.path(&name)), fs::read(staged.below(&name)));
        assert!(here.unwrap() == below.unwrap(), "{name}");
    }
    assert!(staged.lost().is_empty());
}
