//! Numbers as protobuf's JSON form writes them: a whole number may also be a string (`"80"`) or end in `.0`.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// A whole number that is zero when absent.
pub fn int<'de, T: TryFrom<i64>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(Whole(PhantomData))
}

/// A whole number that may be absent or null.
pub fn opt_int<'de, T: TryFrom<i64>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Int<T>>::deserialize(deserializer)?.map(|int| int.0))
}

/// A list of whole numbers.
pub fn ints<'de, T: TryFrom<i64>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Vec::<Int<T>>::deserialize(deserializer)?.into_iter().map(|int| int.0).collect())
}

/// A map from names to whole numbers.
pub fn int_map<'de, T: TryFrom<i64>, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error> {
    Ok(BTreeMap::<String, Int<T>>::deserialize(deserializer)?.into_iter().map(|(key, int)| (key, int.0)).collect())
}

/// A decimal number that is zero when absent.
pub fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    deserializer.deserialize_any(Decimal)
}

/// A decimal number that may be absent or null.
pub fn opt_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    struct Number(f64);
    impl<'de> Deserialize<'de> for Number {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            number(deserializer).map(Self)
        }
    }
    Ok(Option::<Number>::deserialize(deserializer)?.map(|number| number.0))
}

struct Int<T>(T);

impl<'de, T: TryFrom<i64>> Deserialize<'de> for Int<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        int(deserializer).map(Self)
    }
}

struct Whole<T>(PhantomData<T>);

impl<T: TryFrom<i64>> Whole<T> {
    fn fit<E: Error>(number: i64) -> Result<T, E> {
        T::try_from(number).map_err(|_| E::custom(format!("{number} is out of range")))
    }
}

impl<T: TryFrom<i64>> Visitor<'_> for Whole<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        Self::fit(number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        i64::try_from(number).map_err(|_| E::custom(format!("{number} is out of range"))).and_then(Self::fit)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        // Every whole number up to 2^53 has an exact f64.
        if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 {
            Self::fit(number as i64)
        } else {
            Err(E::custom(format!("{number} is not a whole number")))
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::custom(format!("`{text}` is not a whole number"))).and_then(Self::fit)
    }
}

struct Decimal;

impl Visitor<'_> for Decimal {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<f64, E> {
        Ok(number)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(E::custom(format!("`{text}` is not a number"))),
        }
    }
}
