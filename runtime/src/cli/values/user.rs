//! Users by number, as `exec --user` takes them.

use crate::container::ExecUser;

/// Reads `uid` or `uid:gid`. Both are decimal numbers: names would have to be looked up in files of the
/// container, which the engine above does.
pub(crate) fn parse(text: &str) -> Result<ExecUser, String> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    let gid = gid.map(|gid| id(gid, "gid")).transpose()?;
    Ok(ExecUser { uid: id(uid, "uid")?, gid })
}

/// Reads one id. The highest value means "no change" to the kernel (setresuid(2)), so it names nobody.
fn id(text: &str, what: &str) -> Result<u32, String> {
    let decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(id) if decimal && id != u32::MAX => Ok(id),
        _ => Err(format!(
            "bad {what}: {text:?} is not a number from 0 to {}; write uid or uid:gid",
            u32::MAX - 1
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_uid_and_perhaps_a_gid() {
        assert_eq!(parse("0"), Ok(ExecUser { uid: 0, gid: None }));
        assert_eq!(parse("1000:100"), Ok(ExecUser { uid: 1000, gid: Some(100) }));
        assert_eq!(parse("4294967294:0"), Ok(ExecUser { uid: 4_294_967_294, gid: Some(0) }));
    }

    #[test]
    fn what_is_no_number_is_no_user() {
        for text in [
            "",
            ":",
            ":1",
            "1:",
            "+0",
            "-1",
            "0x0",
            "4294967295",
            "4294967296",
            "root",
            "1:2:3",
            " 1",
            "1.0",
            "1:+1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("abc").unwrap_err().starts_with("bad uid: \"abc\""));
        assert!(parse("1:").unwrap_err().starts_with("bad gid: \"\""));
    }
}
