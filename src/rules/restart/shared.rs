//! An app is written as what it is; sharing is this process's own business.
//!
//! Pure; a part of the restart rule.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::plan::App;

pub fn serialize<S: Serializer>(app: &Arc<App>, to: S) -> Result<S::Ok, S::Error> {
    App::serialize(app, to)
}

pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<App>, D::Error> {
    App::deserialize(from).map(Arc::new)
}
