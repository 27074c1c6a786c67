//! Which pair is served where the one on disk is not as it should be.

use std::sync::Arc;

use super::OnBadPair;
use crate::pki::{PairError, pair::Pair};

/// What to serve of one file, and what is wrong with it.
pub(super) struct Choice {
    pub pair: Option<Arc<Pair>>,
    pub problem: Option<PairError>,
}

/// A pair takes the place of the one in service only where it can be served now; one that nothing better stands in for is served as it is,
/// because a client that looks past an old date is better off than one that meets nothing.
///
/// Errors: what was read, under [`OnBadPair::Refuse`], unless it is in service already: time has passed then, and nobody has made a mistake.
pub(super) fn choose(read: Result<Pair, PairError>, in_service: Option<&Arc<Pair>>, now: i64, bad: OnBadPair) -> Result<Choice, PairError> {
    let (pair, problem) = match read {
        Ok(pair) => {
            let problem = pair.valid(now).err();
            (Some(pair), problem)
        }
        Err(error) => (None, Some(error)),
    };
    let Some(problem) = problem else { return Ok(Choice { pair: pair.map(Arc::new), problem: None }) };
    let same = pair.as_ref().zip(in_service).is_some_and(|(pair, in_service)| pair.is(in_service));
    match bad {
        OnBadPair::Refuse if !same => Err(problem),
        OnBadPair::Refuse | OnBadPair::Keep => {
            let kept = in_service.cloned().or_else(|| pair.map(Arc::new));
            Ok(Choice { pair: kept, problem: Some(problem) })
        }
    }
}
