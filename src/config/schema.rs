//! `gateway config schema`: a JSON Schema of gateway.toml, from the shapes that read it.

use super::file::Root;

/// For editors: completion, hover texts, red lines.
#[must_use]
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::SchemaGenerator::default().into_root_schema_for::<Root>();
    schema.insert("title".into(), "gateway.toml".into());
    schema.to_value()
}
