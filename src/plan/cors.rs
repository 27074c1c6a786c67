//! `cors` of a site or a route: which pages of other origins may read its answers.

use std::time::Duration;

use http::{HeaderName, Method};
use serde::{Deserialize, Serialize};

use super::wire;
use crate::vocab::OriginPattern;

/// Shape: `origins` is not empty, and has no [`OriginPattern::Any`] where `credentials` is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cors {
    pub origins: Vec<OriginPattern>,
    #[serde(serialize_with = "wire::methods_out", deserialize_with = "wire::methods_in")]
    pub methods: Vec<Method>,
    /// That a page may send beside the harmless ones. Empty: those that it asks for.
    #[serde(serialize_with = "wire::names_out", deserialize_with = "wire::names_in")]
    pub headers: Vec<HeaderName>,
    /// Cookies and passwords may come along.
    pub credentials: bool,
    /// How long a browser remembers what it was told.
    pub max_age: Duration,
    /// That a page may read beside the harmless ones.
    #[serde(serialize_with = "wire::names_out", deserialize_with = "wire::names_in")]
    pub expose: Vec<HeaderName>,
}
