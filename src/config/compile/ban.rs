//! `[ban]`

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use super::Context;
use crate::{
    config::{
        complaint::{Code, did_you_mean},
        defaults, file,
        shape::{At, Field, Named, Whole},
        value::Time,
    },
    plan::{self, BanMode, ban::Offence, ban::OffenceError},
    vocab::units::duration_text,
};

pub fn compile(field: Field<file::Ban>, c: &mut Context<'_>) -> Option<plan::Ban> {
    let file::Ban { place: _, points, max, find_time, ban_time, grow, ignore, mode } = field.value()?;
    Some(plan::Ban {
        points: self::points(points, c),
        max: NonZeroU32::new(max.value().map_or(defaults::BAN_MAX, |max| max.0)).unwrap_or(NonZeroU32::MIN),
        find_time: whole_seconds(find_time, "find_time", defaults::FIND_TIME, c),
        ban_time: whole_seconds(ban_time, "ban_time", defaults::BAN_TIME, c),
        grow: grow.or(true),
        ignore: c.nets(ignore),
        mode: match mode.or(file::Mode::Enforce) {
            file::Mode::Enforce => BanMode::Enforce,
            file::Mode::Observe => BanMode::Observe,
        },
    })
}

fn points(field: Field<Named<Whole<0, 10_000>>>, c: &mut Context<'_>) -> BTreeMap<Offence, u16> {
    let (named, place) = match field {
        Field::Given(At { value, place }) => (value.0, place),
        Field::Absent => return defaults::ban_points(),
        Field::Bad(_) => return BTreeMap::new(),
    };
    let mut points = BTreeMap::new();
    let mut none = true;
    for (name, number) in named {
        let number = number.value();
        // A bad number has its complaint, and so has a bad name: no third about what is left.
        none &= number.is_some_and(|number| number.0 == 0);
        match Offence::parse(&name.value) {
            Ok(offence) => {
                if let Some(number) = number.filter(|number| number.0 > 0) {
                    points.insert(offence, u16::try_from(number.0).unwrap_or(u16::MAX));
                }
            }
            Err(error) => {
                none = false;
                let meant = match error {
                    OffenceError::Status(_) => String::new(),
                    OffenceError::Unknown(_) => did_you_mean(&name.value, Offence::WORDS),
                };
                let known = Offence::WORDS.map(|word| format!("{word:?}")).join(", ");
                let cure = format!("known here: {known} and any status from 400 to 599, as in \"404\"");
                c.out.add_with_cure(Code::UnknownWord, name.place, format!("{error}{meant}"), cure);
            }
        }
    }
    if none {
        let cure = "give points to something, as in points = { bad-uri = 5 }, or take [ban] out";
        c.out.add_with_cure(Code::EmptyValue, place, "nothing has points, so nobody is ever banned", cure);
    }
    points
}

/// Bans are counted in seconds, as they outlive the process that made them.
fn whole_seconds(field: Field<Time>, key: &str, default: Duration, c: &mut Context<'_>) -> Duration {
    let Some(At { value: Time(time), place }) = field.given() else { return default };
    if time.subsec_nanos() != 0 {
        c.out.add(Code::BadValue, place, format!("{key} is counted in whole seconds: {} is not", duration_text(time)));
    }
    time
}
