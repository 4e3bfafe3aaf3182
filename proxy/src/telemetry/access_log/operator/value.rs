//! Values of operators, and how they are written: straight into the line, for a line has twenty of them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;

use super::super::super::report::ResponseFlags;
use super::moment;

/// The value of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'report> {
    /// There is none: `-` in a text, `null` in JSON.
    Missing,
    /// A number in JSON.
    Number(u64),
    /// A text.
    Text(Cow<'report, str>),
    /// An address with its port.
    Address(SocketAddr),
    /// An address without one.
    Host(IpAddr),
    /// Envoy's short flags.
    Flags(ResponseFlags),
    /// A point of time in Envoy's form.
    Time(Timestamp),
}

impl Value<'_> {
    /// Writes it; where there is none, nothing.
    pub fn write(&self, text: &mut String) {
        match self {
            Value::Missing => {}
            Value::Number(number) => text.push_str(itoa::Buffer::new().format(*number)),
            Value::Text(value) => text.push_str(value),
            Value::Address(address) => write_address(*address, text),
            Value::Host(address) => write_host(*address, text),
            Value::Flags(flags) if flags.is_empty() => text.push('-'),
            Value::Flags(flags) => write_shown(flags, text),
            Value::Time(time) => write_time(*time, text),
        }
    }
}

fn write_address(address: SocketAddr, text: &mut String) {
    match address {
        SocketAddr::V4(address) => {
            write_host(IpAddr::V4(*address.ip()), text);
            text.push(':');
            text.push_str(itoa::Buffer::new().format(address.port()));
        }
        SocketAddr::V6(address) => write_shown(&address, text),
    }
}

fn write_host(address: IpAddr, text: &mut String) {
    let IpAddr::V4(address) = address else {
        return write_shown(&address, text);
    };
    let [first, others @ ..] = address.octets();
    let mut digits = itoa::Buffer::new();
    text.push_str(digits.format(first));
    for octet in others {
        text.push('.');
        text.push_str(digits.format(octet));
    }
}

fn write_shown(value: &impl std::fmt::Display, text: &mut String) {
    // Writing to a String cannot fail.
    let _ = write!(text, "{value}");
}

thread_local! {
    /// The last second that was written, and its text.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
}

/// As [`moment::DEFAULT_FORMAT`] says; what a second is called is found out once.
fn write_time(time: Timestamp, text: &mut String) {
    // Before 1970 fractions count the other way.
    let Ok(millisecond) = u32::try_from(time.subsec_millisecond()) else {
        let whole = jiff::fmt::strtime::format(moment::DEFAULT_FORMAT, time);
        return text.push_str(&whole.unwrap_or_default());
    };
    SECOND.with_borrow_mut(|(second, told)| {
        if *second != time.as_second() {
            *second = time.as_second();
            *told = jiff::fmt::strtime::format("%Y-%m-%dT%H:%M:%S", time).unwrap_or_default();
        }
        text.push_str(told);
    });
    text.push('.');
    for digit in [millisecond / 100, millisecond / 10 % 10, millisecond % 10] {
        text.extend(char::from_digit(digit, 10));
    }
    text.push('Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &Value<'_>) -> String {
        let mut text = String::new();
        value.write(&mut text);
        text
    }

    #[test]
    fn addresses_are_written_as_everywhere() {
        for text in ["10.96.0.255:80", "0.0.0.0:0", "[fd57::6]:65535"] {
            let address: SocketAddr = text.parse().expect("an address");

            assert_eq!(written(&Value::Address(address)), text);
            assert_eq!(
                written(&Value::Host(address.ip())),
                address.ip().to_string()
            );
        }
    }

    #[test]
    fn times_are_written_as_their_format_says() {
        for (second, nanosecond) in [
            (0, 0),
            (1_000_000_000, 999_999_999),
            (1_000_000_000, 7_000_000),
            (1_000_000_001, 70_000_000),
            (-1, -1_000_000),
        ] {
            let time = Timestamp::new(second, nanosecond).expect("a time");
            let whole = jiff::fmt::strtime::format(moment::DEFAULT_FORMAT, time);

            assert_eq!(written(&Value::Time(time)), whole.expect("a text"));
        }
    }
}
