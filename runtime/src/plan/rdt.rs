//! From `linux.intelRdt` to a class of service (runtime-spec, config-linux.md "IntelRdt"; the kernel's
//! Documentation/filesystems/resctrl.rst).

use oci_spec::runtime::Linux;
use serde::Serialize;

/// What every place of this section begins with.
const PLACE: &str = "linux.intelRdt";

/// The class of service that the container's processes get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rdt {
    /// The directory in resctrl; none is the root of it, the default class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// The class is the container's own: it goes with it.
    pub own: bool,
    /// `l3CacheSchema` and `memBwSchema`: what a class that is there already must have, and a new one gets.
    pub matched: Vec<Line>,
    /// What is written to `schemata` after that, in order, whether the class is new or not.
    pub schemata: Vec<Line>,
    /// The monitoring group of its own that the container gets in the class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitoring: Option<String>,
}

/// A line for `schemata`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The place in `config.json`.
    pub place: String,
    /// The line, without its end.
    pub text: String,
}

/// Plans the class; nothing when none is asked for.
pub fn plan(linux: Option<&Linux>, id: &str) -> Option<Rdt> {
    let rdt = linux?.intel_rdt().as_ref()?;
    let given = rdt.clos_id().as_deref().filter(|class| !class.is_empty());
    let class = match given {
        Some("/") => None,
        Some(class) => Some(class.to_owned()),
        None => Some(id.to_owned()),
    };
    let named = |name: &str, schema: &Option<String>| {
        lines(&format!("{PLACE}.{name}"), schema.as_deref().unwrap_or_default())
    };
    let mut matched = named("l3CacheSchema", rdt.l3_cache_schema());
    let bandwidth = named("memBwSchema", rdt.mem_bw_schema());
    if !bandwidth.is_empty() {
        matched.retain(|line| !line.text.starts_with("MB:"));
    }
    matched.extend(bandwidth);
    let mut schemata = Vec::new();
    for (index, line) in rdt.schemata().iter().flatten().enumerate() {
        schemata.extend(lines(&format!("{PLACE}.schemata[{index}]"), line));
    }
    let monitoring = rdt.enable_monitoring().unwrap_or(false).then(|| id.to_owned());
    Some(Rdt { class, own: given.is_none(), matched, schemata, monitoring })
}

/// The class that `update` gives to a container that has none: its own, with these settings.
pub fn own(id: &str, schemata: Vec<Line>) -> Rdt {
    Rdt { class: Some(id.to_owned()), own: true, matched: Vec::new(), schemata, monitoring: None }
}

impl Rdt {
    /// All that a new class gets, in order.
    pub fn settings(&self) -> impl Iterator<Item = &Line> {
        self.matched.iter().chain(&self.schemata)
    }
}

/// The lines of a text, each with the place of the whole.
pub fn lines(place: &str, text: &str) -> Vec<Line> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| Line { place: place.to_owned(), text: line.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(rdt: &serde_json::Value) -> Option<Rdt> {
        plan(Some(&serde_json::from_value(serde_json::json!({ "intelRdt": rdt })).unwrap()), "c1")
    }

    #[test]
    fn a_class_without_a_name_is_the_containers_own() {
        let rdt = planned(&serde_json::json!({"enableMonitoring": true})).unwrap();
        assert_eq!(
            (rdt.class.as_deref(), rdt.own, rdt.monitoring.as_deref()),
            (Some("c1"), true, Some("c1"))
        );
        let rdt = planned(&serde_json::json!({"closID": "gold"})).unwrap();
        assert_eq!((rdt.class.as_deref(), rdt.own), (Some("gold"), false));
        assert_eq!(planned(&serde_json::json!({"closID": "/"})).unwrap().class, None);
        assert_eq!(planned(&serde_json::Value::Null), None);
    }

    #[test]
    fn schemata_are_written_last() {
        let rdt = planned(&serde_json::json!({
            "schemata": ["L2:0=f", "MB:0=30"], "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=7f\nMB:0=50\n"
        }));
        let rdt = rdt.unwrap();
        let shown: Vec<_> = rdt.settings().map(|line| format!("{} {}", line.place, line.text)).collect();
        assert_eq!(
            shown,
            [
                "linux.intelRdt.l3CacheSchema L3:0=7f",
                "linux.intelRdt.memBwSchema MB:0=20",
                "linux.intelRdt.schemata[0] L2:0=f",
                "linux.intelRdt.schemata[1] MB:0=30"
            ]
        );
    }
}
