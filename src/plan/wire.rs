//! How types of other crates travel.
//!
//! Pure.

use http::{HeaderName, Method};
use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(super) fn names_out<S: Serializer>(names: &[HeaderName], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(names.iter().map(HeaderName::as_str))
}

pub(super) fn names_in<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<HeaderName>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    names.into_iter().map(|name| HeaderName::try_from(name).map_err(D::Error::custom)).collect()
}

pub(super) fn methods_out<S: Serializer>(methods: &[Method], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(methods.iter().map(Method::as_str))
}

pub(super) fn methods_in<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Method>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    names.iter().map(|name| name.parse().map_err(D::Error::custom)).collect()
}
