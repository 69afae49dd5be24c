//! PURE. Who an image's `User` is, by the image's own passwd and group files.
//!
//! `user`, `uid`, `user:group`, `uid:gid`, `uid:group` or `user:gid`. Without a group, the user's own group and
//! the groups that list the user apply.

use crate::error::{Error, Result};
use crate::spec::User;

/// Who it is, and the home directory if the image states one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) user: User,
    pub(super) home: Option<String>,
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

pub(super) fn resolve(wanted: &str, passwd: &str, group: &str) -> Result<Account> {
    let (name, group_name) = match wanted.split_once(':') {
        Some((name, group)) => (name, (!group.is_empty()).then_some(group)),
        None => (wanted, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    // a name wins over a number: there may be a user called 1000
    let number = name.parse().ok();
    let known = passwd_lines(passwd)
        .find(|line| line.name == name)
        .or_else(|| passwd_lines(passwd).find(|line| Some(line.uid) == number));
    let uid = known.as_ref().map(|line| line.uid).or(number);
    let uid = uid.filter(|uid| *uid != u32::MAX).ok_or_else(|| unknown("user", name, "/etc/passwd"))?;
    let (gid, additional_gids) = match group_name {
        Some(group_name) => (group_by_name(group_name, group)?, vec![]),
        None => match &known {
            Some(line) => (line.gid, groups_of(line, group)),
            None => (0, vec![]),
        },
    };
    let home = known.map(|line| line.home.to_owned()).filter(|home| !home.is_empty());
    Ok(Account { user: User { uid, gid, additional_gids }, home })
}

fn group_by_name(name: &str, group: &str) -> Result<u32> {
    let number = name.parse().ok();
    let known = group_lines(group)
        .find(|line| line.0 == name)
        .or_else(|| group_lines(group).find(|line| Some(line.1) == number));
    let gid = known.map(|line| line.1).or(number);
    gid.filter(|gid| *gid != u32::MAX).ok_or_else(|| unknown("group", name, "/etc/group"))
}

fn groups_of(user: &Passwd<'_>, group: &str) -> Vec<u32> {
    let mut gids: Vec<_> = group_lines(group)
        .filter(|(_, gid, members)| *gid != user.gid && members.split(',').any(|member| member == user.name))
        .map(|(_, gid, _)| gid)
        .collect();
    gids.sort_unstable();
    gids.dedup();
    gids
}

/// Lines that are no entries are comments, or for NIS, or damaged: none of them names a user.
fn passwd_lines(passwd: &str) -> impl Iterator<Item = Passwd<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        Some(Passwd { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

/// Name, number, members.
fn group_lines(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some((name, gid.parse().ok()?, fields.next().unwrap_or_default()))
    })
}

fn unknown(kind: &str, name: &str, file: &str) -> Error {
    Error::invalid(
        format!("image configuration: {kind}"),
        format!("{name:?}"),
        format!("a number, or a name in the image's {file}"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\n\napp:x:1000:100:App:/home/app:/bin/sh\n\
        nohome:x:5:5::\n2000:x:3000:3000::/odd:\nbroken:x:many:0::/:\n";
    const GROUP: &str =
        "root:x:0:\nusers:x:100:app\nwheel:x:27:app,root\naudio:x:29:apple\nvideo:x:44:other,app\n77:x:78:\n";

    #[test]
    fn users_are_found_by_name_and_number() {
        for (wanted, uid, gid, additional, home) in [
            ("", 0, 0, &[27][..], Some("/root")),
            ("root", 0, 0, &[27], Some("/root")),
            ("0", 0, 0, &[27], Some("/root")),
            ("app", 1000, 100, &[27, 44], Some("/home/app")),
            ("1000", 1000, 100, &[27, 44], Some("/home/app")),
            ("app:wheel", 1000, 27, &[], Some("/home/app")),
            ("app:500", 1000, 500, &[], Some("/home/app")),
            ("app:", 1000, 100, &[27, 44], Some("/home/app")),
            ("1234", 1234, 0, &[], None),
            ("1234:users", 1234, 100, &[], None),
            ("nohome", 5, 5, &[], None),
            ("2000", 3000, 3000, &[], Some("/odd")),
            ("0:77", 0, 78, &[], Some("/root")),
        ] {
            let account = resolve(wanted, PASSWD, GROUP).unwrap();
            let expected = User { uid, gid, additional_gids: additional.to_vec() };
            assert_eq!(account, Account { user: expected, home: home.map(Into::into) }, "{wanted}");
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        for wanted in ["nobody", "app:nogroup", "-1", "4294967295", "4294967296", "broken", "1000:4294967295"]
        {
            assert!(resolve(wanted, PASSWD, GROUP).is_err(), "{wanted}");
        }
        assert_eq!(resolve("", "", "").unwrap().user, User::default());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(wanted in ".{0,20}", passwd in ".{0,200}", group in ".{0,200}") {
            let _ = resolve(&wanted, &passwd, &group);
        }

        #[test]
        fn numbers_that_no_file_knows_stand_for_themselves(uid in 0..u32::MAX, gid in 0..u32::MAX) {
            let user = resolve(&format!("{uid}:{gid}"), "", "").unwrap().user;
            prop_assert_eq!(user, User { uid, gid, additional_gids: vec![] });
        }
    }
}
