//! Columns back into rows: lists, maps and structures from the levels of their leaves' entries.
//!
//! ```text
//! optional   its level is not reached: no value, one entry of every leaf below it says so
//! repeated   its level is not reached: an empty list; else one item for every entry that repeats at it
//! list       group with one repeated group with one field inside: its items are those fields
//! map        the same with two fields: an object, its keys as texts
//! ```

use serde_json::{Map, Value};

use super::footer::Element;
use super::page::Leaf;

/// Deepest nesting that is followed, and most leaves.
const DEPTH_MAX: usize = 32;

/// What one leaf says about one place of a row.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) repetition: u32,
    pub(super) definition: u32,
    pub(super) value: Option<Value>,
}

/// The entries of a leaf, and how many of them are used up.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) entries: Vec<Entry>,
    pub(super) at: usize,
}

/// A field of the schema.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    repetition: i64,
    /// Levels at which it is there.
    definition: u32,
    repeats: u32,
    shape: Shape,
    /// Leaves below it.
    pub(super) leaves: std::ops::Range<usize>,
}

#[derive(Debug)]
enum Shape {
    Leaf,
    Struct(Vec<Node>),
    List(Box<Node>),
    Map(Box<Node>),
}

/// The fields of a flattened schema and its leaves; none when it contradicts itself.
pub(super) fn tree(elements: &[Element]) -> Option<(Vec<Node>, Vec<Leaf>)> {
    let (root, mut rest) = elements.split_first()?;
    let mut leaves = Vec::new();
    let fields = children(root.children, &mut rest, (0, 0), 0, &mut leaves)?;
    Some((fields, leaves))
}

fn children(
    count: i64,
    rest: &mut &[Element],
    levels: (u32, u32),
    depth: usize,
    leaves: &mut Vec<Leaf>,
) -> Option<Vec<Node>> {
    if depth > DEPTH_MAX || count < 0 || count > rest.len() as i64 {
        return None;
    }
    (0..count)
        .map(|_| node(rest, levels, depth, leaves))
        .collect()
}

fn node(
    rest: &mut &[Element],
    (definition, repeats): (u32, u32),
    depth: usize,
    leaves: &mut Vec<Leaf>,
) -> Option<Node> {
    let (element, behind) = rest.split_first()?;
    *rest = behind;
    let levels = (
        definition + u32::from(element.repetition != 0),
        repeats + u32::from(element.repetition == 2),
    );
    let first = leaves.len();
    let shape = match element.children {
        0 => {
            leaves.push(Leaf {
                kind: super::columns::leaf(element),
                element: element.clone(),
                definition: levels.0,
                repetition: levels.1,
            });
            Shape::Leaf
        }
        count => shape(element, children(count, rest, levels, depth + 1, leaves)?),
    };
    Some(Node {
        name: element.name.clone(),
        repetition: element.repetition,
        definition: levels.0,
        repeats: levels.1,
        shape,
        leaves: first..leaves.len(),
    })
}

fn shape(element: &Element, mut fields: Vec<Node>) -> Shape {
    let logical = element.logical.map_or(0, |logical| logical.id);
    let is_list = logical == 3 || element.converted == Some(3);
    let is_map = logical == 2 || matches!(element.converted, Some(1 | 2));
    let is_one = fields.len() == 1 && fields[0].repetition == 2;
    match is_one && (is_list || is_map) {
        true if is_map => Shape::Map(Box::new(fields.remove(0))),
        true => Shape::List(Box::new(fields.remove(0))),
        false => Shape::Struct(fields),
    }
}

impl Node {
    /// The field's value in the next row, and one row of every leaf below it used up. Entries that
    /// contradict each other give some value, and end.
    pub(super) fn row(&self, streams: &mut [Stream]) -> Value {
        let Some(entry) = self.peek(streams) else {
            return Value::Null;
        };
        let is_there = entry.definition >= self.definition;
        match self.repetition {
            2 if !is_there => {
                self.pass(streams);
                Value::Array(Vec::new())
            }
            2 => Value::Array(self.items(streams)),
            _ if !is_there => {
                self.pass(streams);
                Value::Null
            }
            _ => self.content(streams),
        }
    }

    fn items(&self, streams: &mut [Stream]) -> Vec<Value> {
        let mut items = Vec::new();
        loop {
            let before = self.position(streams);
            items.push(self.content(streams));
            let goes_on = self
                .peek(streams)
                .is_some_and(|next| next.repetition == self.repeats);
            if !goes_on || self.position(streams) == before {
                return items;
            }
        }
    }

    fn content(&self, streams: &mut [Stream]) -> Value {
        match &self.shape {
            Shape::Leaf => {
                let Some(stream) = streams.get_mut(self.leaves.start) else {
                    return Value::Null;
                };
                let value = stream.entries.get_mut(stream.at);
                stream.at += 1;
                value
                    .and_then(|entry| entry.value.take())
                    .unwrap_or(Value::Null)
            }
            Shape::Struct(fields) => {
                let each = fields
                    .iter()
                    .map(|field| (field.name.clone(), field.row(streams)));
                Value::Object(each.collect())
            }
            Shape::List(items) => match items.row(streams) {
                Value::Array(found) => {
                    Value::Array(found.into_iter().map(|item| inner(items, item)).collect())
                }
                other => other,
            },
            Shape::Map(items) => match items.row(streams) {
                Value::Array(found) => Value::Object(found.into_iter().filter_map(pair).collect()),
                other => other,
            },
        }
    }

    fn peek<'a>(&self, streams: &'a [Stream]) -> Option<&'a Entry> {
        let stream = streams.get(self.leaves.start)?;
        stream.entries.get(stream.at)
    }

    fn position(&self, streams: &[Stream]) -> usize {
        streams.get(self.leaves.start).map_or(0, |stream| stream.at)
    }

    /// Uses one entry of every leaf below up.
    fn pass(&self, streams: &mut [Stream]) {
        let below = streams.get_mut(self.leaves.clone()).unwrap_or_default();
        below.iter_mut().for_each(|stream| stream.at += 1);
    }
}

/// The one field in the repeated group of a list.
fn inner(items: &Node, item: Value) -> Value {
    match (&items.shape, item) {
        (Shape::Struct(fields), Value::Object(mut members)) if fields.len() == 1 => {
            members.remove(&fields[0].name).unwrap_or(Value::Null)
        }
        (_, item) => item,
    }
}

/// Key and value of an item of a map.
fn pair(item: Value) -> Option<(String, Value)> {
    let Value::Object(members) = item else {
        return None;
    };
    let mut values = in_order(members);
    let key = match values.next()? {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Some((key, values.next().unwrap_or(Value::Null)))
}

/// `key` before `value`, whatever the order in which an object keeps them.
fn in_order(mut members: Map<String, Value>) -> std::vec::IntoIter<Value> {
    let key = members.remove("key");
    let rest: Vec<Value> = members.into_iter().map(|(_, value)| value).collect();
    key.into_iter().chain(rest).collect::<Vec<_>>().into_iter()
}
