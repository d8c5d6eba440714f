//! The one error type that leaves the plugin, and the codes the specification gives to failures.

use std::fmt;

use serde_json::{Value, json};

use super::version::Version;
use crate::datapath::config::Unsupported;
use crate::ipam::{DelegateError, Exhausted};
use crate::node::Conflict;

/// What a verb of the plugin returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error codes of the CNI specification, and ours from 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The version of the configuration is not supported.
    IncompatibleVersion,
    /// A key or a value in the configuration is known but not supported.
    UnsupportedField,
    /// The container is unknown, so the runtime need not clean up; never for a failed ADD.
    UnknownContainer,
    /// An environment variable is missing or invalid.
    InvalidEnvironment,
    /// Reading or writing failed.
    Io,
    /// The configuration is not JSON of the expected shape.
    Decode,
    /// A value in the configuration is invalid.
    InvalidConfig,
    /// `CNI_NETNS` is not a network namespace of a container.
    InvalidNetns,
    /// A condition that passes; the runtime should try again.
    TryAgain,
    /// STATUS: the plugin cannot serve ADD.
    NotAvailable,
    /// STATUS: the plugin cannot serve ADD, and running containers may have lost their network.
    NotAvailableAndDegraded,
    /// A range set has no free address.
    RangeExhausted,
    /// Anything else.
    Internal,
    /// The code of another plugin, passed on.
    Delegated(u32),
}

impl Code {
    /// The number in the error object.
    pub fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::UnknownContainer => 3,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decode => 6,
            Self::InvalidConfig => 7,
            Self::InvalidNetns => 8,
            Self::TryAgain => 11,
            Self::NotAvailable => 50,
            Self::NotAvailableAndDegraded => 51,
            Self::RangeExhausted => 100,
            Self::Internal => 999,
            Self::Delegated(code) => code,
        }
    }
}

/// A failure with the code that the runtime is told.
#[derive(Debug)]
pub struct Error {
    code: Code,
    source: anyhow::Error,
}

impl Error {
    /// A failure that is not caused by another.
    pub fn new(
        code: Code,
        message: impl fmt::Display + fmt::Debug + Send + Sync + 'static,
    ) -> Self {
        Self {
            code,
            source: anyhow::Error::msg(message),
        }
    }

    /// A failure caused by another.
    pub fn wrap(code: Code, source: impl Into<anyhow::Error>) -> Self {
        Self {
            code,
            source: source.into(),
        }
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The error object for the runtime: `msg` is the top context, `details` the chain beneath it. The object of
    /// another plugin is passed on as it was.
    pub fn to_json(&self, version: Version) -> Value {
        let (msg, details) = match self.delegated() {
            Some(delegate) => (delegate.to_string(), delegate.details.clone()),
            None => {
                let causes: Vec<_> = self
                    .source
                    .chain()
                    .skip(1)
                    .map(ToString::to_string)
                    .collect();
                (self.source.to_string(), causes.join(": "))
            }
        };
        let mut object = json!({"cniVersion": version, "code": self.code.number(), "msg": msg});
        if !details.is_empty() {
            object["details"] = details.into();
        }
        object
    }

    fn delegated(&self) -> Option<&DelegateError> {
        let within = || self.source.downcast_ref::<Self>()?.delegated();
        self.source.downcast_ref::<DelegateError>().or_else(within)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.source()
    }
}

/// Typed causes keep their codes; whatever has none is internal.
impl From<anyhow::Error> for Error {
    fn from(source: anyhow::Error) -> Self {
        let code = if let Some(coded) = source.downcast_ref::<Self>() {
            coded.code
        } else if let Some(delegate) = source.downcast_ref::<DelegateError>() {
            Code::Delegated(if delegate.code == 0 {
                Code::Internal.number()
            } else {
                delegate.code
            })
        } else if source.is::<Exhausted>() {
            Code::RangeExhausted
        } else if source.is::<Unsupported>() {
            Code::UnsupportedField
        } else if source.is::<Conflict>() {
            Code::InvalidConfig
        } else {
            Code::Internal
        };
        Self { code, source }
    }
}

/// Gives a failure its code: `parse(text).code(Code::InvalidConfig)?`.
pub trait WithCode<T> {
    /// Turns the error into one with this code.
    fn code(self, code: Code) -> Result<T>;
}

impl<T, E: Into<anyhow::Error>> WithCode<T> for std::result::Result<T, E> {
    fn code(self, code: Code) -> Result<T> {
        self.map_err(|source| Error::wrap(code, source))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    fn json_of(error: impl Into<Error>) -> Value {
        error.into().to_json(Version::V1_1_0)
    }

    #[test]
    fn the_message_is_the_top_context_and_the_details_are_the_chain() {
        let error = anyhow!("no such device")
            .context("link 7: delete")
            .context("attachment a/eth0: remove");
        let expected = json!({"cniVersion": "1.1.0", "code": 999, "msg": "attachment a/eth0: remove",
            "details": "link 7: delete: no such device"});
        assert_eq!(json_of(error), expected);
    }

    #[test]
    fn details_are_left_out_when_there_are_none() {
        let expected = json!({"cniVersion": "0.2.0", "code": 7, "msg": "bad"});
        assert_eq!(
            Error::new(Code::InvalidConfig, "bad").to_json(Version::V0_2_0),
            expected
        );
    }

    #[test]
    fn any_error_can_be_given_a_code() {
        let io = std::fs::read("/nonexistent").code(Code::Io).unwrap_err();
        assert_eq!(io.code(), Code::Io);
        let context = "x"
            .parse::<u8>()
            .context("mtu")
            .code(Code::InvalidConfig)
            .unwrap_err();
        assert_eq!(json_of(context)["details"], "invalid digit found in string");
    }

    #[test]
    fn exhaustion_has_its_own_code_under_any_context() {
        let exhausted = Exhausted {
            ranges: "10.0.0.1-10.0.0.2".into(),
        };
        let json = json_of(anyhow::Error::from(exhausted.clone()).context("ipam"));
        assert_eq!(json["code"], 100);
        let json = json_of(anyhow::Error::from(exhausted));
        assert_eq!(
            json["msg"],
            "no IP addresses available in range set: 10.0.0.1-10.0.0.2"
        );
    }

    #[test]
    fn the_error_object_of_a_delegate_surfaces_as_it_was() {
        let error = DelegateError {
            code: 117,
            msg: "no".into(),
            details: "way".into(),
        };
        let json = json_of(anyhow::Error::from(error).context("ipam stub: ADD"));
        assert_eq!(
            json,
            json!({"cniVersion": "1.1.0", "code": 117, "msg": "no", "details": "way"})
        );
        let zero = DelegateError {
            code: 0,
            msg: "no".into(),
            details: String::new(),
        };
        assert_eq!(json_of(anyhow::Error::from(zero))["code"], 999);
    }

    #[test]
    fn a_delegate_that_does_not_say_why_it_failed_still_makes_a_message() {
        let error = DelegateError {
            code: 7,
            msg: String::new(),
            details: "way".into(),
        };
        let json = json_of(anyhow::Error::from(error).context("ipam stub: ADD"));
        let msg = "failed with code 7, and does not say why";
        assert_eq!(
            json,
            json!({"cniVersion": "1.1.0", "code": 7, "msg": msg, "details": "way"})
        );
    }

    #[test]
    fn a_code_survives_the_way_through_anyhow() {
        let inner =
            || -> anyhow::Result<()> { Err(Error::new(Code::InvalidNetns, "netns: not one"))? };
        assert_eq!(json_of(inner().unwrap_err())["code"], 8);
        let json = json_of(inner().context("outer").unwrap_err());
        assert_eq!(
            (&json["code"], &json["msg"], &json["details"]),
            (&json!(8), &json!("outer"), &json!("netns: not one"))
        );
        let delegate = DelegateError {
            code: 117,
            msg: "no".into(),
            details: String::new(),
        };
        let coded = Error::from(anyhow::Error::from(delegate));
        assert_eq!(
            json_of(anyhow::Error::from(coded).context("outer"))["msg"],
            "no"
        );
    }
}
