//! Times as decimal numbers of seconds.

use std::fmt;
use std::time::Duration;

/// A time in seconds, with as many digits as the format says, up to nine, and six where it says nothing. Whole numbers
/// do it: the code that writes floating-point ones would be a fiftieth of this program.
pub struct Seconds(pub Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(6).clamp(1, 9);
        let mut fraction = self.0.subsec_nanos();
        for _ in digits..9 {
            fraction /= 10;
        }
        write!(f, "{}.{fraction:0digits$}", self.0.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits() {
        let time = Duration::new(7, 4_911_999);
        assert_eq!(Seconds(time).to_string(), "7.004911");
        assert_eq!(format!("{:.4} {:.9}", Seconds(time), Seconds(time)), "7.0049 7.004911999");
        assert_eq!(Seconds(Duration::ZERO).to_string(), "0.000000");
    }
}
