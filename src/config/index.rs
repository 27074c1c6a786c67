//! Where the values of a configuration stand, by their keys: for what is found only when the machine is looked at.
//!
//! Pure.

use std::collections::BTreeMap;

use super::{
    complaint::Place,
    tree::{Entry, Text, Value},
};

/// A value, as far as it is one text.
#[derive(Clone, Debug)]
struct Leaf {
    place: Place,
    text: Option<Text>,
}

/// By the keys that lead there; elements of lists by their number.
#[derive(Clone, Debug, Default)]
pub struct Index(BTreeMap<Vec<String>, Leaf>);

impl Index {
    #[must_use]
    pub fn of(entries: &[Entry]) -> Self {
        let mut index = Self::default();
        index.table(entries, &mut Vec::new());
        index
    }

    /// `None`: it is not written anywhere, a default holds.
    #[must_use]
    pub fn place(&self, keys: &[&str]) -> Option<Place> {
        self.leaf(keys).map(|leaf| leaf.place)
    }

    /// The text that is written there.
    #[must_use]
    pub fn text(&self, keys: &[&str]) -> Option<&Text> {
        self.leaf(keys).and_then(|leaf| leaf.text.as_ref())
    }

    fn leaf(&self, keys: &[&str]) -> Option<&Leaf> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        self.0.get(&keys)
    }

    fn table(&mut self, entries: &[Entry], path: &mut Vec<String>) {
        for entry in entries {
            path.push(entry.key.clone());
            self.value(&entry.node.value, entry.node.place, path);
            path.pop();
        }
    }

    fn value(&mut self, value: &Value, place: Place, path: &mut Vec<String>) {
        let text = match value {
            Value::Text(text) => Some(text.clone()),
            Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Date | Value::Array(_) | Value::Table(_) | Value::Broken => None,
        };
        self.0.insert(path.clone(), Leaf { place, text });
        match value {
            Value::Table(entries) => self.table(entries, path),
            Value::Array(nodes) => {
                for (n, node) in nodes.iter().enumerate() {
                    path.push(n.to_string());
                    self.value(&node.value, node.place, path);
                    path.pop();
                }
            }
            Value::Text(_) | Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Date | Value::Broken => {}
        }
    }
}
