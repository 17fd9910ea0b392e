//! Our copy of the interface, compared with the published one field by field.

use std::collections::BTreeMap;
use std::process::Command;

use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet};

use crate::support::skip;

/// Services that are left out, with what only they use.
const LEFT_OUT: [&str; 2] = ["GroupController", "SnapshotMetadata"];

/// What of a file goes over the wire: every field, value and call, by its full name.
fn facts(file: &FileDescriptorProto) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    for message in &file.message_type {
        of_message(message, "", &mut facts);
    }
    for kind in &file.enum_type {
        of_enum(kind, "", &mut facts);
    }
    for service in &file.service {
        for method in &service.method {
            let name = format!("rpc {}.{}", service.name(), method.name());
            let streams = (method.client_streaming(), method.server_streaming());
            let fact = format!(
                "{} -> {} {streams:?}",
                method.input_type(),
                method.output_type()
            );
            facts.insert(name, fact);
        }
    }
    facts
}

fn of_message(message: &DescriptorProto, above: &str, facts: &mut BTreeMap<String, String>) {
    let path = format!("{above}{}.", message.name());
    facts.insert(format!("message {path}"), String::new());
    for field in &message.field {
        let one = field.oneof_index.and_then(|index| {
            let index = usize::try_from(index).ok()?;
            Some(message.oneof_decl.get(index)?.name().to_owned())
        });
        let fact = format!(
            "{} {:?} {:?} {} {one:?}",
            field.number(),
            field.r#type(),
            field.label(),
            field.type_name()
        );
        facts.insert(format!("field {path}{}", field.name()), fact);
    }
    for inner in &message.nested_type {
        of_message(inner, &path, facts);
    }
    for kind in &message.enum_type {
        of_enum(kind, &path, facts);
    }
}

fn of_enum(kind: &EnumDescriptorProto, above: &str, facts: &mut BTreeMap<String, String>) {
    for value in &kind.value {
        let name = format!("value {above}{}.{}", kind.name(), value.name());
        facts.insert(name, value.number().to_string());
    }
}

/// Whether a fact is of a service that is left out.
fn is_left_out(name: &str) -> bool {
    let path = name.split(' ').nth(1).unwrap_or_default();
    let first = path.split('.').next().unwrap_or_default();
    let parts = [
        "GroupSnapshot",
        "GroupController",
        "BlockMetadata",
        "GetMetadata",
    ];
    LEFT_OUT.contains(&first) || parts.iter().any(|part| first.contains(part))
}

// A number or a type that differs makes the driver understand something else than the kubelet said.
#[test]
fn the_interface_is_the_published_one() {
    let Some(programs) = std::env::var_os("TERRACE_TEST_CSI") else {
        skip(
            "the_interface_is_the_published_one",
            "TERRACE_TEST_CSI is not set",
        );
        return;
    };
    let program = std::path::Path::new(&programs).join("csi-descriptor");
    let printed = Command::new(program).output().unwrap();
    assert!(printed.status.success());
    let published = FileDescriptorProto::decode(printed.stdout.as_slice()).unwrap();
    let set = FileDescriptorSet::decode(terrace_csi::wire::DESCRIPTOR).unwrap();
    let own = set
        .file
        .iter()
        .find(|file| file.package() == "csi.v1")
        .unwrap();
    let mut theirs = facts(&published);
    let all = theirs.len();
    theirs.retain(|name, _| !is_left_out(name));
    let ours = facts(own);
    for (name, fact) in &theirs {
        assert_eq!(ours.get(name), Some(fact), "{name}");
    }
    assert_eq!(ours.len(), theirs.len(), "there is more than was published");
    assert!(
        theirs.len() > 350 && all > theirs.len(),
        "{} of {all}",
        theirs.len()
    );
}
