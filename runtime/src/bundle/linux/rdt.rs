//! `linux.intelRdt` (`config-linux.md`, "IntelRdt").

use oci_spec::runtime::Linux;

use super::super::problems::{Problems, has};

pub(super) fn check(linux: &Linux, text: &[u8], problems: &mut Problems) {
    let Some(rdt) = linux.intel_rdt() else { return };
    if let Some(id) = rdt.clos_id()
        && (id == "." || id == ".." || (id.contains('/') && id != "/"))
    {
        problems.refuse(
            "linux.intelRdt.closID",
            format!("invalid intelRdt.ClosID {id:?}; it names a directory of resctrl, or / for its root"),
        );
    }
    // The types have them under other names.
    for name in ["enableCMT", "enableMBM"] {
        let place = format!("linux.intelRdt.{name}");
        if has(text, &place) {
            problems.warn(place, "does nothing since version 1.3 of the specification; use enableMonitoring");
        }
    }
    if let Some(schema) = rdt.mem_bw_schema().as_ref().filter(|schema| !schema.is_empty()) {
        if !schema.starts_with("MB:") {
            problems.refuse("linux.intelRdt.memBwSchema", format!("{schema:?} does not begin with \"MB:\""));
        }
        if schema.contains('\n') {
            problems.refuse("linux.intelRdt.memBwSchema", "has a line break; give one line");
        }
    }
    for (index, line) in rdt.schemata().iter().flatten().enumerate() {
        if line.contains('\n') {
            problems.refuse(
                format!("linux.intelRdt.schemata[{index}]"),
                "has a line break; give each line as an element of its own",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{accepts, refuses};
    use serde_json::json;

    #[test]
    fn a_class_of_service_is_a_directory_name_and_schemata_are_lines() {
        accepts(
            "linux.intelRdt",
            json!({"closID": "a", "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=f"}),
        );
        accepts("linux.intelRdt", json!({"schemata": ["L3:0=f", "MB:0=20"], "enableMonitoring": true}));
        accepts("linux.intelRdt", json!({"closID": "/"}));
        for id in [".", "..", "a/b", "/a"] {
            refuses("linux.intelRdt", json!({"closID": id}), "linux.intelRdt.closID");
        }
        let warnings = accepts("linux.intelRdt", json!({"enableCMT": true, "closID": "a"})).warnings;
        assert!(warnings.len() == 1 && warnings[0].contains("linux.intelRdt.enableCMT"), "{warnings:?}");
        refuses("linux.intelRdt", json!({"memBwSchema": "L3:0=f"}), "linux.intelRdt.memBwSchema");
        refuses("linux.intelRdt", json!({"memBwSchema": "MB:0=1\nL3:0=1"}), "linux.intelRdt.memBwSchema");
        refuses("linux.intelRdt", json!({"schemata": ["a", "b\nc"]}), "linux.intelRdt.schemata[1]");
    }
}
