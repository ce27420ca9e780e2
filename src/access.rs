//! What the user of this process may not read, and the users and groups of this machine by name.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use rustix::process::geteuid;

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// Why this user cannot read the file or directory, and what to do; `None` where it can be read, or does not exist.
pub fn problem(path: &Path) -> Option<String> {
    if !is_denied(path) {
        return None;
    }
    // What the user may not enter hides what is below it.
    let visible = path.ancestors().find(|above| fs::symlink_metadata(above).is_ok()).unwrap_or(path);
    let as_whom = fs::metadata(visible).map_or_else(|_| "as root (sudo)".to_owned(), |found| readers(&found));
    Some(format!("`{}` cannot be read by {}: run this {as_whom}", path.display(), user_name(geteuid().as_raw())))
}

/// The same for a directory and the files in it.
pub fn problem_in(dir: &Path) -> Option<String> {
    let files = || fs::read_dir(dir).into_iter().flatten().flatten().find_map(|entry| problem(&entry.path()));
    problem(dir).or_else(files)
}

/// Whether permissions keep this user from reading the file or directory.
pub fn is_denied(path: &Path) -> bool {
    let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    match fs::metadata(path) {
        Err(error) => denied(&error),
        Ok(found) if found.is_dir() => fs::read_dir(path).is_err_and(|error| denied(&error)),
        Ok(_) => rustix::fs::access(path, rustix::fs::Access::READ_OK).is_err_and(|error| denied(&error.into())),
    }
}

/// That this user cannot change the file or directory.
pub fn read_only(path: &Path) -> String {
    format!("`{}` cannot be changed by {}", path.display(), user_name(geteuid().as_raw()))
}

/// Whether permissions keep this user from changing an existing file or directory.
pub fn is_read_only(path: &Path) -> bool {
    let denied = |error: rustix::io::Errno| io::Error::from(error).kind() == io::ErrorKind::PermissionDenied;
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_err_and(denied)
}

fn readers(found: &fs::Metadata) -> String {
    let group_reads = found.mode() & 0o040 != 0 && found.gid() != 0;
    let group = group_reads.then(|| format!(", or as a member of the group `{}`", group_name(found.gid())));
    format!("as root (sudo){}", group.unwrap_or_default())
}

/// The name of a user; its number where it has none.
pub fn user_name(uid: u32) -> String {
    login_name(uid).map_or_else(|| format!("user {uid}"), |name| format!("user `{name}`"))
}

/// The name with which a user logs in; `None` where the number has none.
pub fn login_name(uid: u32) -> Option<String> {
    name(USERS.as_ref(), uid)
}

fn group_name(gid: u32) -> String {
    name(GROUPS.as_ref(), gid).unwrap_or_else(|| gid.to_string())
}

/// The name of a number in a file with lines `name:password:number:...`.
fn name(file: &Path, number: u32) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let of_line = |line: &str| {
        let mut fields = line.split(':');
        let (name, found) = (fields.next()?, fields.nth(1)?);
        (found.parse() == Ok(number)).then(|| name.to_owned())
    };
    text.lines().find_map(of_line)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_can_be_read_or_does_not_exist_is_no_problem() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(problem(dir.path()), None);
        assert_eq!(problem(&dir.path().join("absent/file")), None);
    }

    #[test]
    fn the_problem_names_the_path_and_the_group_that_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let found = |mode| {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            readers(&fs::metadata(dir.path()).unwrap())
        };
        let gid = fs::metadata(dir.path()).unwrap().gid();
        let group =
            if gid == 0 { String::new() } else { format!(", or as a member of the group `{}`", group_name(gid)) };
        assert_eq!(found(0o750), format!("as root (sudo){group}"));
        assert_eq!(found(0o700), "as root (sudo)");
    }

    #[test]
    fn users_and_groups_have_their_names() {
        assert_eq!((login_name(0).as_deref(), login_name(4_000_000_001)), (Some("root"), None));
        assert_eq!(user_name(0), "user `root`");
        assert_eq!(user_name(4_000_000_001), "user 4000000001");
        assert_eq!(group_name(0), "root");
    }
}
