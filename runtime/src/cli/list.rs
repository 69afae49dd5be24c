use clap::{Arg, ArgMatches, Command};

use super::{Global, flag, print, table};
use crate::container::Container;
use crate::container::state::{Report, report};
use crate::{Error, Result};

pub(super) fn define(command: Command) -> Command {
    command
        .about("List the containers of this root")
        .arg(
            Arg::new("format")
                .long("format")
                .short('f')
                .value_parser(["table", "json"])
                .default_value("table"),
        )
        .arg(flag("quiet").short('q').help("Ids only"))
}

/// As `state` tells it, with the owner.
fn row(container: &Container) -> Result<Report> {
    let owner = container.record.as_ref().map(|record| record.owner.clone()).unwrap_or_default();
    Ok(Report { owner, ..report(container)? })
}

pub(super) fn run(global: &Global, args: &ArgMatches) -> Result<u8> {
    if global.place.is_some() {
        // As in runc: only the default root may be missing.
        let root = global.root()?;
        rustix::fs::access(root.path(), rustix::fs::Access::EXISTS)
            .map_err(Error::path("read --root", root.path()))?;
    }
    let mut rows = Vec::new();
    for id in global.root()?.list()? {
        // One that is deleted meanwhile is not listed; one that cannot be read does not hide the others.
        match Container::open(&global.root()?, &id).and_then(|container| row(&container)) {
            Ok(row) => rows.push(row),
            Err(Error::NoContainer { .. }) => {}
            Err(error) => crate::observe::log::warn(&format!("container {id}: {}", error.chain())),
        }
    }
    if args.get_flag("quiet") {
        let ids: String = rows.iter().map(|row| format!("{}\n", row.id)).collect();
        return print(&ids).map(|()| 0);
    }
    if args.get_one::<String>("format").is_some_and(|format| format == "json") {
        let text = serde_json::to_string(&rows);
        return print(&text.map_err(|source| Error::Json { what: "the list".into(), source })?).map(|()| 0);
    }
    let mut lines = vec![["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from).to_vec()];
    lines.extend(rows.into_iter().map(|report| {
        vec![
            report.id,
            report.pid.to_string(),
            report.status.to_string(),
            report.bundle,
            report.created,
            report.owner,
        ]
    }));
    print(&table(&lines)).map(|()| 0)
}
