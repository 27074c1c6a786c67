//! An error with its causes, on one line: how every room tells of one.

use std::{error::Error, iter};

/// The error, its cause, the cause of that.
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |error| (*error).source())
}

/// `error: cause: cause of that`
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// `could not error: cause (cure)`
#[must_use]
pub fn story(error: &(dyn Error + 'static), cure: Option<&str>) -> String {
    let cure = cure.map(|cure| format!(" ({cure})")).unwrap_or_default();
    format!("could not {}{cure}", chain(error))
}

/// Whether the kernel said "not permitted" somewhere among its causes.
#[must_use]
pub fn is_denied(error: &(dyn Error + 'static)) -> bool {
    causes(error)
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_their_error() {
        #[derive(Debug, thiserror::Error)]
        #[error("write x")]
        struct Outer(#[source] std::io::Error);
        let inner = std::io::Error::other(Outer(std::io::ErrorKind::NotFound.into()));
        let error = Outer(inner);
        assert_eq!(chain(&error), "write x: write x: entity not found");
        assert!(!is_denied(&error) && is_denied(&Outer(std::io::ErrorKind::PermissionDenied.into())));
        assert_eq!(story(&error, None), "could not write x: write x: entity not found");
        assert_eq!(story(&error, Some("make room")), "could not write x: write x: entity not found (make room)");
    }
}
