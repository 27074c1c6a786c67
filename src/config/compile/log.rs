//! `[log]`, and when files are put aside.

use super::Context;
use crate::{
    config::{
        complaint::Code,
        defaults, file,
        shape::{At, Either, OrOff},
    },
    plan,
};

/// The log of the plan, and the rotation that apps start from.
pub fn compile(table: file::Log, c: &mut Context<'_>) -> (plan::Log, plan::Rotation) {
    let file::Log { place: _, level, format, dir, access, rotate } = table;
    let dir = dir.value().map(|path| c.absolute(&path.0));
    let base = plan::Rotation {
        size: defaults::ROTATE_SIZE,
        age: Some(defaults::ROTATE_AGE),
        keep: defaults::ROTATE_KEEP as usize,
        compress: true,
    };
    let rotate = rotate.value().map_or(base.clone(), |table| rotation(table, &base));
    let access = match access.given() {
        Some(At { value: Either::This(word), .. }) => match word {
            file::AccessWord::Json => Some(plan::AccessLog { format: plan::AccessFormat::Json, sample: 1.0 }),
            file::AccessWord::Combined => Some(plan::AccessLog { format: plan::AccessFormat::Combined, sample: 1.0 }),
            file::AccessWord::Off => None,
        },
        Some(At { value: Either::That(table), .. }) => Some(access_log(table, c)),
        None => dir.is_some().then_some(plan::AccessLog { format: plan::AccessFormat::Json, sample: 1.0 }),
    };
    let log = plan::Log {
        level: match level.or(file::Level::Info) {
            file::Level::Error => plan::LogLevel::Error,
            file::Level::Warn => plan::LogLevel::Warn,
            file::Level::Info => plan::LogLevel::Info,
            file::Level::Debug => plan::LogLevel::Debug,
            file::Level::Trace => plan::LogLevel::Trace,
        },
        format: match format.or(file::LogFormat::Text) {
            file::LogFormat::Text => plan::LogFormat::Text,
            file::LogFormat::Json => plan::LogFormat::Json,
        },
        dir,
        access,
        rotate: rotate.clone(),
    };
    (log, rotate)
}

fn access_log(table: file::Access, c: &mut Context<'_>) -> plan::AccessLog {
    let file::Access { place: _, format, sample } = table;
    plan::AccessLog {
        format: match format.or(file::AccessFormat::Json) {
            file::AccessFormat::Json => plan::AccessFormat::Json,
            file::AccessFormat::Combined => plan::AccessFormat::Combined,
        },
        sample: share(sample.given(), 1.0, c),
    }
}

/// A share of all, 0.0 to 1.0.
pub fn share(written: Option<At<f64>>, default: f64, c: &mut Context<'_>) -> f64 {
    match written {
        Some(At { value, place }) if !(0.0..=1.0).contains(&value) => {
            c.out.add(Code::BadValue, place, format!("expected a share from 0.0 to 1.0, found {value}"));
            default
        }
        // Never -0.0: equal plans are written the same.
        Some(At { value, .. }) => value.abs(),
        None => default,
    }
}

/// What is not written here is as in `base`.
pub fn rotation(table: file::Rotate, base: &plan::Rotation) -> plan::Rotation {
    let file::Rotate { place: _, size, age, keep, compress } = table;
    plan::Rotation {
        size: size.value().map_or(base.size, |size| size.0),
        age: match age.value() {
            Some(OrOff::On(age)) => Some(age.0),
            Some(OrOff::Off) => None,
            None => base.age,
        },
        keep: keep.value().map_or(base.keep, |keep| keep.0 as usize),
        compress: compress.or(base.compress),
    }
}
