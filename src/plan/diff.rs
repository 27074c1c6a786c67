//! What a reload changes: old plan × new plan → changes.
