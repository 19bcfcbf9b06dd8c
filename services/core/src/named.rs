//! Enums whose values have one name each, as databases and configuration write it.

/// Gives an enum `ALL`, `as_str` and `from_name`.
///
/// ```
/// #[derive(Clone, Copy)]
/// enum Side { Left, Right }
/// octroi_core::named!(Side { Left => "left", Right => "right" });
/// assert_eq!(Side::ALL.map(Side::as_str), ["left", "right"]);
/// assert!(Side::from_name("Left").is_none());
/// ```
#[macro_export]
macro_rules! named {
    ($type:ident { $($value:ident => $name:literal),* $(,)? }) => {
        impl $type {
            /// Every value.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$value),*];

            /// Its name, as databases and configuration write it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)*
                }
            }

            /// The value of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|value| value.as_str() == name)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use crate::{Aggregation, MetricKind, Period};

    #[test]
    fn every_value_is_found_by_its_name_and_written_with_it() {
        macro_rules! check {
            ($($type:ident),*) => {$(
                for value in $type::ALL {
                    assert_eq!($type::from_name(value.as_str()), Some(value));
                    let written = serde_json::to_value(value).expect("a text");
                    assert_eq!(written, value.as_str());
                }
                assert_eq!($type::from_name("nothing"), None);
            )*};
        }
        check!(Period, MetricKind, Aggregation);
    }

    #[test]
    fn the_shortest_period_comes_first() {
        assert!(Period::ALL.is_sorted());
        assert_eq!(Period::ALL.len(), 4);
    }
}
