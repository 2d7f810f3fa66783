//! `linux.intelRdt`: classes of service. This machine's kernel has no resctrl; what stands in behaves as it.

use std::process::{Command, ExitCode};

use coracle_integration::command::{Finished, run};
use coracle_integration::resctrl::Resctrl;
use coracle_integration::{Bundle, Checked, Container, Runtime, skip, tests};
use serde_json::{Value, json};

fn main() -> ExitCode {
    coracle_integration::run_tests(tests![
        without_resctrl_it_is_refused,
        a_container_without_the_section_leaves_resctrl_alone,
        a_class_of_its_own_comes_and_goes_with_the_container,
        settings_are_written_in_their_order,
        a_class_that_is_named_with_settings_is_made_and_stays,
        a_class_that_is_only_named_must_be_there,
        a_class_that_is_there_must_match,
        the_schemata_of_a_class_that_is_there_are_written,
        the_default_class_can_be_named,
        a_monitoring_group_comes_and_goes_with_the_container,
        what_exec_adds_is_in_the_class_too,
        a_wrong_setting_is_told_with_the_kernels_words,
        classes_that_are_all_taken_are_told,
        a_failed_create_leaves_no_class,
        update_changes_the_class,
        update_gives_a_class_to_a_container_without_one,
        the_state_tells_of_the_class,
        the_plan_and_features_tell_of_classes,
    ])
}

/// The runtime with a resctrl.
struct Machine<'r> {
    rt: &'r Runtime,
    resctrl: Resctrl,
}

impl<'r> Machine<'r> {
    fn with(rt: &'r Runtime) -> Result<Self, coracle_integration::Skip> {
        rt.coracle_only("runc's rules of classes are those of an older specification")?;
        match Resctrl::mount(rt) {
            Some(resctrl) => Ok(Self { rt, resctrl }),
            None => Err(skip("FUSE can't be used here").expect_err("it is skipped")),
        }
    }

    fn sleeper(&self, rdt: &Value) -> Bundle {
        self.rt.sleeper().edit(|config| config["linux"]["intelRdt"] = rdt.clone())
    }

    #[track_caller]
    fn run(&self, command: &Command) -> Finished {
        run(self.resctrl.shown_to(command))
    }

    #[track_caller]
    fn call(&self, words: &[&str]) -> Finished {
        self.run(&self.rt.command(words))
    }

    /// A created and started container; its output is kept in files.
    #[track_caller]
    fn up(&self, rdt: &Value) -> Container<'r> {
        let c = self.rt.container(&self.sleeper(rdt));
        c.detached(self.resctrl.shown_to(&c.create_command(&[]))).ok();
        c.start().ok();
        c
    }

    #[track_caller]
    fn refused(&self, rdt: &Value) -> Finished {
        let c = self.rt.container(&self.sleeper(rdt));
        self.run(&c.create_command(&[])).fails()
    }

    #[track_caller]
    fn delete(&self, c: &Container<'_>) {
        self.call(&["delete", "--force", &c.id]).ok();
    }
}

fn without_resctrl_it_is_refused(rt: &Runtime) -> Checked {
    rt.coracle_only("the words are ours")?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if mounts.contains(" - resctrl ") {
        return skip("this machine has a resctrl");
    }
    rt.sh("true", |config| config["linux"]["intelRdt"] = json!({ "closID": "gold" }))
        .fails_with("linux.intelRdt")
        .fails_with("no resctrl filesystem is mounted");
    Ok(())
}

fn a_container_without_the_section_leaves_resctrl_alone(rt: &Runtime) -> Checked {
    let machine = Machine::with(rt)?;
    let c = machine.up(&Value::Null);
    assert!(machine.resctrl.tasks("").is_empty());
    assert!(!machine.resctrl.has(&c.id));
    machine.delete(&c);
    Ok(())
}

fn a_class_of_its_own_comes_and_goes_with_the_container(rt: &Runtime) -> Checked {
    let machine = Machine::with(rt)?;
    let c = machine.up(&json!({ "l3CacheSchema": "L3:0=0f", "memBwSchema": "MB:0=20" }));
    assert_eq!(machine.resctrl.tasks(&c.id), [c.pid()]);
    assert_eq!(machine.resctrl.read(&format!("{}/schemata", c.id)), "L3:0=00f\n    MB:0=20");
    machine.delete(&c);
    assert!(!machine.resctrl.has(&c.id));
    Ok(())
}

fn settings_are_written_in_their_order(rt: &Runtime) -> Checked {
    let machine = Machine::with(rt)?;
    let c = machine.up(&json!({
        "schemata": ["MB:0=30"], "l3CacheSchema": "L3:0=f\nMB:0=50", "memBwSchema": "MB:0=20"
    }));
    assert_eq!(machine.resctrl.read(&format!("{}/schemata", c.id)), "L3:0=00f\n    MB:0=30");
    machine.delete(&c);
    Ok(())
}

fn a_class_that_is_named_with_settings_is_made_and_stays(rt: &Runtime) -> Checked {
    let machine = Machine::with(rt)?;
    let c = machine.up(&json!({ "closID": "gold", "schemata": ["L3:0=ff"] }));
    assert_eq!(machine.resctrl.tasks("gold"), [c.pid()]);
    machine.delete(&c);
    assert!(machine.resctrl.has("gold"));
    Ok(())
}

fn a_class_that_is_only_named_must_be_there(rt: &Runtime) -> Checked {
    let machine = Machine::with(rt)?;
    machine
        .refused(&json!({ "closID": "gold" }))
        .fails_with("linux.intelRdt.closID")
        .fails_with("no such file or directory");
    assert!(!machine.resctrl.has("gold"));
    std::fs::create_dir(machine.resctrl.path("gold")).expect("making a class");
    let c = machine.up(&json!({ "closID": "gold" }));
    assert_eq!(machine.resctrl.tasks("gold"), [c.pid()]);
    machine.delete(&c);
    assert!(machine.resctrl.has("gold"));
    Ok(())
}

fn a_class_that_is_there_must_match(rt: &Runtime) -> Checked {
    let machine = Machine::with(rt)?;
    std::fs::create_dir(machine.resctrl.path("gold")).expect("making a class");
    let before = machine.resctrl.read("gold/schemata");
    machine
        .refused(&json!({ "closID": "gold", "l3CacheSchema": "L3:0=f" }))
        .fails_with("linux.intelRdt.l3CacheSchema")
        .fails_with("doesn't match its schemata");
    assert_eq!(machine.resctrl.read("gold/schemata"), before);
    let c = machine.up(&json!({ "closID": "gold", "l3CacheSchema": "L3:0=0fff", "memBwSchema": "MB:0=100" }));
    machine.delete(&c);
    assert_eq!(machine.resctrl.read("gold/schemata"), before);
    Ok(())
}

fn the_schemata_of_a_class_that_is_there_are_written(rt: &Runtime) -> Checked {
    let machine = Machine::with(rt)?;
    std::fs::create_dir(machine.resctrl.path("gold")).expect("making a class");
    let c = machine.up(&json!({ "closID": "gold", "schemata": ["L3:0=0f", "MB:0=30"] }));
    assert_eq!(machine.resctrl.read("gold/schemata"), "L3:0=00f\n    MB:0=30");
    machine.delete(&c);
    assert!(machine.resctrl.has("gold"));
    Ok(())
}

fn the_default_class_can_be_named(rt: &Runtime) -> Checked {
    let machine = Machine::with(rt)?;
    let c = machine.up(&json!({ "closID": "/" }));
    assert_eq!(machine.resctrl.tasks(""), [c.pid()]);
    machine.delete(&c);
    Ok(())
}

fn a_monitoring_group_comes_and_goes_with_the_container(rt: &Runtime) -> Checked {
    let machine = Machine::with(rt)?;
    std::fs::create_dir(machine.resctrl.path("gold")).expect("making a class");
    let c = machine.up(&json!({ "closID": "gold", "enableMonitoring": true }));
    let group = format!("gold/mon_groups/{}", c.id);
    assert_eq!(machine.resctrl.tasks(&group), [c.pid()]);
    machine.delete(&c);
    assert!(!machine.resctrl.has(&group) && machine.resctrl.has("gold"));
    Ok(())
}

fn what_exec_adds_is_in_the_class_too(rt: &Runtime) -> Checked {
    let machine = Machine::with(rt)?;
    let c = machine.up(&json!({ "enableMonitoring": true }));
    let pid_file = rt.scratch("pid");
    let file = pid_file.to_string_lossy();
    c.detached(
        machine.resctrl.shown_to(&c.exec_command(&["--detach", "--pid-file", &file], &["sleep", "1000"])),
    )
    .ok();
    let pid: i32 = std::fs::read_to_string(&pid_file).expect("the pid file").parse().expect("a number");
    assert_eq!(machine.resctrl.tasks(&c.id), [c.pid(), pid]);
    assert_eq!(machine.resctrl.tasks(&format!("{0}/mon_groups/{0}", c.id)), [c.pid(), pid]);
    machine.delete(&c);
    Ok(())
}

fn a_wrong_setting_is_told_with_the_kernels_words(rt: &Runtime) -> Checked {
    let machine = Machine::with(rt)?;
    machine
        .refused(&json!({ "closID": "gold", "schemata": ["L3:0=f", "MB:0=5"] }))
        .fails_with("linux.intelRdt.schemata[1]")
        .fails_with("invalid argument")
        .fails_with("the kernel says: MB value 5 out of range [10,100]");
    assert!(!machine.resctrl.has("gold"));
    Ok(())
}

fn classes_that_are_all_taken_are_told(rt: &Runtime) -> Checked {
    let machine = Machine::with(rt)?;
    for name in ["one", "two", "three"] {
        std::fs::create_dir(machine.resctrl.path(name)).expect("making a class");
    }
    machine
        .refused(&json!({}))
        .fails_with("no space left on device")
        .fails_with("all classes of service of this machine are taken");
    Ok(())
}

fn a_failed_create_leaves_no_class(rt: &Runtime) -> Checked {
    let machine = Machine::with(rt)?;
    for rdt in [json!({ "enableMonitoring": true }), json!({ "closID": "gold", "schemata": ["L3:0=f"] })] {
        let bundle = machine.sleeper(&rdt).edit(|config| config["process"]["args"] = json!(["/nowhere"]));
        let c = rt.container(&bundle);
        machine.run(&c.create_command(&[])).fails_with("/nowhere");
        assert!(!machine.resctrl.has(&c.id) && !machine.resctrl.has("gold"));
    }
    Ok(())
}

fn update_changes_the_class(rt: &Runtime) -> Checked {
    let machine = Machine::with(rt)?;
    let c = machine.up(&json!({ "l3CacheSchema": "L3:0=f" }));
    machine.call(&["update", "--l3-cache-schema", "L3:0=3", "--mem-bw-schema", "MB:0=40", &c.id]).ok();
    assert_eq!(machine.resctrl.read(&format!("{}/schemata", c.id)), "L3:0=003\n    MB:0=40");
    machine
        .call(&["update", "--mem-bw-schema", "MB:0=4", &c.id])
        .fails_with("the kernel says: MB value 4 out of range [10,100]");
    machine.call(&["update", "--mem-bw-schema", "L3:0=4", &c.id]).fails_with("does not begin with");
    machine.delete(&c);
    Ok(())
}

fn update_gives_a_class_to_a_container_without_one(rt: &Runtime) -> Checked {
    let machine = Machine::with(rt)?;
    let c = machine.up(&Value::Null);
    machine.call(&["update", "--l3-cache-schema", "L3:0=3", &c.id]).ok();
    assert!(machine.resctrl.tasks(&c.id).contains(&c.pid()));
    machine.delete(&c);
    assert!(!machine.resctrl.has(&c.id));
    Ok(())
}

fn the_state_tells_of_the_class(rt: &Runtime) -> Checked {
    let machine = Machine::with(rt)?;
    let c = machine.up(&json!({ "enableMonitoring": true }));
    let state = std::fs::read_to_string(rt.root().join(&c.id).join("state.json")).expect("the state");
    let state: Value = serde_json::from_str(&state).expect("JSON");
    let class = machine.resctrl.path(&c.id);
    assert_eq!(state["intelRdt"]["path"], json!(class));
    assert_eq!(state["intelRdt"]["monitoring"], json!(class.join("mon_groups").join(&c.id)));
    machine.delete(&c);
    Ok(())
}

fn the_plan_and_features_tell_of_classes(rt: &Runtime) -> Checked {
    rt.coracle_only("runc has no plan")?;
    let bundle = rt
        .script("true")
        .edit(|config| config["linux"]["intelRdt"] = json!({ "closID": "gold", "schemata": ["L3:0=f"] }));
    let plan = rt.call(&["plan", "--bundle", &bundle.path().to_string_lossy()]).ok();
    assert!(plan.stdout.contains("use the class of service gold"), "{plan}");
    assert!(plan.stdout.contains("set L3:0=f in it"), "{plan}");
    let features: Value = serde_json::from_str(&rt.call(&["features"]).ok().stdout).expect("JSON");
    assert_eq!(
        features["linux"]["intelRdt"],
        json!({ "enabled": true, "schemata": true, "monitoring": true })
    );
    Ok(())
}
