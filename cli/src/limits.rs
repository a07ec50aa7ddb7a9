//! `--limit NAME=VALUE`: every field of the library's [`Limits`], by its name.

use longshore::Limits;

/// One limit that the caller sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    name: &'static str,
    value: u64,
}

/// Makes the list of names and the function that sets one, from the fields; a field that is missing here does not compile.
macro_rules! fields {
    ($($name:ident),+ $(,)?) => {
        /// The names, in the order of the struct.
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),+];

        fn set(limits: &mut Limits, setting: &Setting) -> Result<(), String> {
            let Limits { $($name),+ } = limits;
            match setting.name {
                $(stringify!($name) => put($name, setting.value),)+
                other => Err(format!("there is no limit {other}")),
            }
        }
    };
}

fields!(manifest, config, metadata, json_depth, index_depth, nodes, members, names, layers, spool, ratio, ratio_floor, idle);

fn put<T: TryFrom<u64>>(field: &mut T, value: u64) -> Result<(), String> {
    *field = T::try_from(value).map_err(|_| format!("{value} is more than this machine can count"))?;
    Ok(())
}

/// The defaults, with the caller's settings in their order.
pub(crate) fn resolve(settings: &[Setting]) -> Result<Limits, String> {
    let mut limits = Limits::default();
    for setting in settings {
        set(&mut limits, setting)?;
    }
    Ok(limits)
}

/// Parses `NAME=VALUE`: a number, with `K`, `M`, `G` or `T` for powers of 1000 and `KiB`, `MiB`, … for powers of 1024.
pub(crate) fn parse(text: &str) -> Result<Setting, String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let wanted = name.trim().replace('-', "_");
    let known = NAMES.iter().find(|known| **known == wanted);
    let name = known.ok_or_else(|| format!("there is no limit {name:?}; there are {}", NAMES.join(", ")))?;
    Ok(Setting { name, value: parse_number(value.trim())? })
}

fn parse_number(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let bad = || format!("{text:?} is not a whole number such as 100, 64M or 8MiB");
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let power = |letter: char| "KMGT".find(letter.to_ascii_uppercase()).map(|at| at as u32 + 1);
    let mut letters = unit.chars();
    let factor = match (letters.next(), letters.as_str()) {
        (None, _) => 1,
        (Some(letter), "" | "B") => 1000_u64.pow(power(letter).ok_or_else(bad)?),
        (Some(letter), "i" | "iB") => 1024_u64.pow(power(letter).ok_or_else(bad)?),
        _ => return Err(bad()),
    };
    number.checked_mul(factor).ok_or_else(|| format!("{text} is over {}", u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_units() {
        for (text, expected) in [
            ("0", 0),
            ("100", 100),
            ("64M", 64_000_000),
            ("64MB", 64_000_000),
            ("8MiB", 8 << 20),
            ("8Mi", 8 << 20),
            ("2k", 2000),
            ("1T", 1_000_000_000_000),
        ] {
            assert_eq!(parse_number(text), Ok(expected), "{text}");
        }
        for bad in ["", "M", "-1", "1.5G", "1X", "1MiBs", "1 M", "20000000T", "B"] {
            assert!(parse_number(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_name_is_taken_and_sets_its_field() {
        for name in NAMES {
            let limits = resolve(&[parse(&format!("{name}=7")).unwrap()]).unwrap();
            assert_ne!(limits, Limits::default(), "{name}");
        }
        let limits = resolve(&[parse("json-depth=7").unwrap(), parse("spool=1GiB").unwrap(), parse("spool=2GiB").unwrap()]).unwrap();
        assert_eq!((limits.json_depth, limits.spool), (7, 2 << 30));
    }

    #[test]
    fn an_unknown_name_lists_the_known() {
        let error = parse("colour=1").unwrap_err();
        assert!(error.starts_with("there is no limit \"colour\"; there are manifest, config, "), "{error}");
        assert_eq!(parse("layers"), Err("expected NAME=VALUE".to_owned()));
    }
}
