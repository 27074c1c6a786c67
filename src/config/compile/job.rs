//! `schedule`: what makes a job of an app.

use std::num::NonZeroU16;

use super::Context;
use crate::{
    config::{
        complaint::{Code, Place},
        file,
        shape::{At, Either, Field},
        value::Cron,
    },
    plan,
    vocab::AppName,
};

pub fn schedule(
    field: Field<Either<Cron, file::Schedule>>,
    listens: bool,
    procs: NonZeroU16,
    c: &mut Context<'_>,
) -> Option<plan::Schedule> {
    let At { value, place } = field.given()?;
    if listens {
        let cure = "take {port}, {socket} and `port` out, or the schedule";
        c.out.add_with_cure(Code::Conflict, place, "an app with a schedule is a job: it may have no port or socket", cure);
    }
    if procs.get() > 1 {
        c.out.add_with_cure(Code::Conflict, place, "a job never overlaps itself: it has one process", "take `procs` out");
    }
    let (cron, zone, timeout) = match value {
        Either::This(cron) => (cron, None, None),
        Either::That(file::Schedule { place, cron, zone, timeout }) => {
            let cure = "add one, as in schedule = { cron = \"0 2 * * *\", zone = \"Europe/Rome\" }";
            let cron = cron.required("this schedule has no cron", place, cure, c.out)?;
            (cron.value, zone.value(), timeout.value())
        }
    };
    Some(plan::Schedule { cron: cron.0, zone: zone.map(|zone| zone.0), timeout: timeout.map(|time| time.0) })
}

/// Keys that are about a program which stays: an option that does nothing is a mistake.
pub fn idle(name: &AppName, keys: &[(&str, Option<Place>)], c: &mut Context<'_>) {
    for (key, place) in keys {
        if let Some(place) = place {
            let message = format!("{key} means nothing to app {name}, which is a job: it runs when its schedule says, and ends");
            c.out.add_with_cure(Code::Conflict, *place, message, "take it out, or the schedule");
        }
    }
}

/// Where something stands in `restart` that is about starting it again.
pub fn restart(field: &Field<Either<file::PolicyWord, file::Restart>>) -> Option<Place> {
    match field {
        Field::Given(At { value: Either::This(_), place }) => Some(*place),
        Field::Given(At { value: Either::That(table), .. }) => {
            let file::Restart { place: _, policy, delay, max_delay, budget, success: _, give_up } = table;
            [policy.place(), delay.place(), max_delay.place(), budget.place(), give_up.place()].into_iter().flatten().next()
        }
        Field::Absent | Field::Bad(_) => None,
    }
}
