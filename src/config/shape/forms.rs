//! Shapes that are made of others: lists, names, short and long forms, and the plain kinds of TOML.
//!
//! Pure.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{At, Block, Field, Shape, read};
use crate::config::{
    complaint::{Code, Complaints},
    tree::{Entry, Node, Text, Value},
};

macro_rules! plain {
    ($kind:ty, $expects:literal, $fits:pat, $read:expr) => {
        impl Shape for $kind {
            fn expects() -> String {
                $expects.into()
            }

            fn fits(node: &Node) -> bool {
                matches!(node.value, $fits)
            }

            fn read(node: Node, out: &mut Complaints) -> Option<Self> {
                let read: fn(Node, &mut Complaints) -> Option<Self> = $read;
                read(node, out)
            }
        }
    };
}

impl JsonSchema for Text {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

plain!(Text, "a string", Value::Text(_), |node, _| match node.value {
    Value::Text(text) => Some(text),
    _ => None,
});
plain!(bool, "true or false", Value::Bool(_), |node, _| match node.value {
    Value::Bool(yes) => Some(yes),
    _ => None,
});
plain!(f64, "a decimal number", Value::Float(_) | Value::Integer(_), |node, _| match node.value {
    Value::Float(number) => Some(number),
    // Exact below 2^53, and every caller checks a range far below.
    Value::Integer(number) => number.map(|n| n as f64),
    _ => None,
});

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Whole<const MIN: u32, const MAX: u32>(pub u32);

impl<const MIN: u32, const MAX: u32> Shape for Whole<MIN, MAX> {
    fn expects() -> String {
        format!("a whole number from {MIN} to {MAX}")
    }

    fn fits(node: &Node) -> bool {
        matches!(node.value, Value::Integer(_))
    }

    fn read(node: Node, out: &mut Complaints) -> Option<Self> {
        let Value::Integer(number) = node.value else { return None };
        match number.and_then(|n| u32::try_from(n).ok()).filter(|n| (MIN..=MAX).contains(n)) {
            Some(number) => Some(Self(number)),
            None => {
                let found = number.map_or("one beyond 64 bits".to_owned(), |n| n.to_string());
                out.add(Code::BadValue, node.place, format!("expected {}, found {found}", Self::expects()));
                None
            }
        }
    }
}

impl<const MIN: u32, const MAX: u32> JsonSchema for Whole<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Whole_{MIN}_{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

/// `["a", "b"]`; a bad element does not hide the others.
#[derive(Clone, Debug)]
pub struct List<T>(pub Vec<At<T>>);

impl<T: Shape> Shape for List<T> {
    const BLOCK: Block = match T::BLOCK {
        Block::Table => Block::Tables,
        Block::None | Block::Tables | Block::Names => Block::None,
    };

    fn expects() -> String {
        format!("a list, each {}", T::expects())
    }

    fn fits(node: &Node) -> bool {
        matches!(node.value, Value::Array(_))
    }

    fn read(node: Node, out: &mut Complaints) -> Option<Self> {
        let Value::Array(items) = node.value else { return None };
        let read: Vec<Option<At<T>>> = items.into_iter().map(|item| read(item, out).given()).collect();
        read.into_iter().collect::<Option<Vec<_>>>().map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("List_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": generator.subschema_for::<T>() })
    }
}

/// `"a"` or `["a", "b"]`.
#[derive(Clone, Debug)]
pub struct OneOrMore<T>(pub Vec<At<T>>);

impl<T: Shape> Shape for OneOrMore<T> {
    fn expects() -> String {
        format!("{} or a list of such", T::expects())
    }

    fn fits(node: &Node) -> bool {
        T::fits(node) || List::<T>::fits(node)
    }

    fn read(node: Node, out: &mut Complaints) -> Option<Self> {
        if T::fits(&node) { read(node, out).given().map(|one| Self(vec![one])) } else { List::read(node, out).map(|list| Self(list.0)) }
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMore<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("One_or_more_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one.clone(), { "type": "array", "items": one }] })
    }
}

/// A table whose keys are the user's own names, in file order.
#[derive(Clone, Debug)]
pub struct Named<T>(pub Vec<(At<String>, Field<T>)>);

impl<T: Shape> Shape for Named<T> {
    const BLOCK: Block = Block::Names;

    fn expects() -> String {
        "a table of names".into()
    }

    fn fits(node: &Node) -> bool {
        matches!(node.value, Value::Table(_))
    }

    fn read(node: Node, out: &mut Complaints) -> Option<Self> {
        let Value::Table(entries) = node.value else { return None };
        let block = |entry: &Entry| match (T::BLOCK, &entry.node.value) {
            (Block::Table, Value::Array(nodes)) => !nodes.is_empty() && nodes.iter().all(|node| matches!(node.value, Value::Table(_))),
            (Block::None | Block::Table | Block::Tables | Block::Names, _) => false,
        };
        let nameless = |entry: &Entry| {
            T::BLOCK == Block::Table && !T::fits(&entry.node) && !matches!(entry.node.value, Value::Array(_) | Value::Broken)
        };
        let mut told = false;
        let mut all = Vec::new();
        for entry in entries {
            let name = At { value: entry.key.clone(), place: entry.place };
            let field = if block(&entry) {
                let message = format!("{:?} is one table, and this is a list of them", entry.key);
                out.add_with_cure(Code::WrongType, entry.place, message, "write its name in one pair of brackets, as in [app.web]");
                Field::Bad(entry.node.place)
            } else if nameless(&entry) {
                // One line is enough for all keys of a block without a name.
                if !std::mem::replace(&mut told, true) {
                    let message =
                        format!("expected {}, found {}: here stand names, each with a table of its own", T::expects(), entry.node.kind());
                    out.add_with_cure(
                        Code::WrongType,
                        entry.node.place,
                        message,
                        "give the block a name in its header, as in [app.web] or [upstream.api]",
                    );
                }
                Field::Bad(entry.node.place)
            } else {
                read(entry.node, out)
            };
            all.push((name, field));
        }
        Some(Self(all))
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Named_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<T>() })
    }
}

/// A short form or a long one, told apart by the kind of value.
#[derive(Clone, Debug)]
pub enum Either<A, B> {
    This(A),
    That(B),
}

impl<A: Shape, B: Shape> Shape for Either<A, B> {
    fn expects() -> String {
        format!("{} or {}", A::expects(), B::expects())
    }

    fn fits(node: &Node) -> bool {
        A::fits(node) || B::fits(node)
    }

    fn read(node: Node, out: &mut Complaints) -> Option<Self> {
        if A::fits(&node) { A::read(node, out).map(Self::This) } else { B::read(node, out).map(Self::That) }
    }
}

impl<A: JsonSchema, B: JsonSchema> JsonSchema for Either<A, B> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}_or_{}", A::schema_name(), B::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [generator.subschema_for::<A>(), generator.subschema_for::<B>()] })
    }
}

/// A value, or `"off"`.
#[derive(Clone, Debug)]
pub enum OrOff<T> {
    Off,
    On(T),
}

impl<T: Shape> Shape for OrOff<T> {
    fn expects() -> String {
        format!("{} or \"off\"", T::expects())
    }

    fn fits(node: &Node) -> bool {
        T::fits(node) || matches!(&node.value, Value::Text(text) if text.value == "off")
    }

    fn read(node: Node, out: &mut Complaints) -> Option<Self> {
        match &node.value {
            Value::Text(text) if text.value == "off" => Some(Self::Off),
            _ => T::read(node, out).map(Self::On),
        }
    }
}

impl<T: JsonSchema> JsonSchema for OrOff<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}_or_off", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [generator.subschema_for::<T>(), { "const": "off" }] })
    }
}
