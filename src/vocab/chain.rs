//! An error with its causes, on one line: how every room tells of one.

/// `error: cause: cause of that`
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
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
        assert_eq!(chain(&Outer(inner)), "write x: write x: entity not found");
    }
}
