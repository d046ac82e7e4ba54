//! The request methods that a function answers.

use std::fmt;

use midge_abi::contract::Method;

/// The methods that settings may name: those of the contract that reach a function.
const NAMED: [(Method, &str); 7] = [
    (Method::Get, "GET"),
    (Method::Head, "HEAD"),
    (Method::Post, "POST"),
    (Method::Put, "PUT"),
    (Method::Delete, "DELETE"),
    (Method::Options, "OPTIONS"),
    (Method::Patch, "PATCH"),
];

/// A set of methods, one bit per code of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Methods(u16);

const _: () = assert!(Method::Connect.code() < 16, "each code has a bit");

impl Methods {
    /// Every method, also those without a code.
    pub const ANY: Self = Self(u16::MAX);
    /// Those that read: what files answer.
    pub const READING: Self = Self(1 << Method::Get.code() | 1 << Method::Head.code());
    /// None yet.
    pub const NONE: Self = Self(0);

    /// Returns the names that settings may use.
    pub fn names() -> impl Iterator<Item = &'static str> + Clone {
        NAMED.iter().map(|(_, name)| *name)
    }

    /// Returns the set with the method of this name too, or nothing if settings may not name it.
    #[must_use]
    pub fn with_name(self, name: &str) -> Option<Self> {
        let (method, _) = NAMED.iter().find(|(_, known)| *known == name)?;
        Some(Self(self.0 | 1 << method.code()))
    }

    /// Returns true if the function answers this method. The caller answers 405 where it does not.
    #[must_use]
    pub const fn allows(self, method: Method) -> bool {
        self.0 & (1 << method.code()) != 0
    }
}

/// Shown as the value of an `Allow` header, or `any`.
impl fmt::Display for Methods {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ANY {
            return formatter.write_str("any");
        }
        let allowed = NAMED.iter().filter(|(method, _)| self.allows(*method));
        let names: Vec<_> = allowed.map(|(_, name)| *name).collect();
        formatter.write_str(&names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_allows_what_it_names() {
        let methods = Methods::NONE.with_name("POST").unwrap().with_name("GET").unwrap();
        assert!(methods.allows(Method::Get) && methods.allows(Method::Post));
        assert!(!methods.allows(Method::Put) && !methods.allows(Method::Other));
        assert_eq!(methods.to_string(), "GET, POST");
        assert_eq!(Methods::NONE.with_name("get"), None);
        assert!(Methods::ANY.allows(Method::Other));
    }
}
