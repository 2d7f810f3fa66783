//! Seccomp profiles for tests: short ones in place, and the default profile of container engines; and the probe, a
//! program that sees from inside what a filter does.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::command::{command, run};
use crate::{Bundle, Checked, Finished, Runtime, Skip, host, skip};

/// Where Debian's golang-github-containers-common, which Podman needs, puts the engines' default profile.
const DEFAULT_PROFILE: &str = "/usr/share/containers/seccomp.json";

/// The architecture of this machine, as profiles name it and as engines' profiles do.
const ARCHITECTURES: [(&str, &str, &str); 3] = [
    ("x86_64", "SCMP_ARCH_X86_64", "amd64"),
    ("aarch64", "SCMP_ARCH_AARCH64", "arm64"),
    ("riscv64", "SCMP_ARCH_RISCV64", "riscv64"),
];

/// mkdir(2), which only older architectures have.
pub const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

/// A profile with this default action.
pub fn profile(default_action: &str, rules: &[Value]) -> Value {
    json!({ "defaultAction": default_action, "syscalls": rules })
}

/// A rule without conditions.
pub fn rule(names: &[&str], action: &str) -> Value {
    json!({ "names": names, "action": action })
}

/// The default profile of engines as they put it into `config.json` for a container with these capabilities.
/// An error says why there is none.
pub fn engines_default(capabilities: &[&str]) -> Result<Value, String> {
    let path = Path::new(DEFAULT_PROFILE);
    let text = fs::read_to_string(path).map_err(|error| format!("reading {DEFAULT_PROFILE}: {error}"))?;
    let engine: Value =
        serde_json::from_str(&text).map_err(|error| format!("{DEFAULT_PROFILE} is not JSON: {error}"))?;
    let (_, native, short) = ARCHITECTURES
        .iter()
        .find(|(machine, ..)| *machine == std::env::consts::ARCH)
        .ok_or_else(|| format!("{} is not known to the tests", std::env::consts::ARCH))?;
    Ok(expand(&engine, native, short, capabilities))
}

/// What an engine makes of its profile: the rules for this architecture and these capabilities.
fn expand(engine: &Value, native: &str, short: &str, capabilities: &[&str]) -> Value {
    let holds = |list: &Value, known: &[&str]| -> Vec<bool> {
        let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().map(|item| item.as_str().is_some_and(|item| known.contains(&item))).collect()
    };
    let applies = |rule: &&Value| {
        let (include, exclude) = (&rule["includes"], &rule["excludes"]);
        let architectures = holds(&include["arches"], &[short]);
        (architectures.is_empty() || architectures.contains(&true))
            && !holds(&include["caps"], capabilities).contains(&false)
            && !holds(&exclude["arches"], &[short]).contains(&true)
            && !holds(&exclude["caps"], capabilities).contains(&true)
    };
    let rules: Vec<Value> =
        engine["syscalls"].as_array().into_iter().flatten().filter(applies).map(of_spec).collect();
    let mut architectures = vec![json!(native)];
    let map = engine["archMap"].as_array().into_iter().flatten();
    for entry in map.filter(|entry| entry["architecture"] == native) {
        architectures.extend(entry["subArchitectures"].as_array().into_iter().flatten().cloned());
    }
    let mut profile = profile(engine["defaultAction"].as_str().unwrap_or_default(), &rules);
    profile["architectures"] = Value::Array(architectures);
    if !engine["defaultErrnoRet"].is_null() {
        profile["defaultErrnoRet"] = engine["defaultErrnoRet"].clone();
    }
    profile
}

/// A rule with the properties that the runtime specification has.
fn of_spec(rule: &Value) -> Value {
    let mut rule = rule.clone();
    if let Some(properties) = rule.as_object_mut() {
        properties.retain(|key, value| {
            ["names", "action", "args", "errnoRet"].contains(&key.as_str()) && !value.is_null()
        });
    }
    rule
}

/// The program that looks at filters from inside (`tests/seccomp/probe.c`), compiled once a test program. An error says
/// why there is none.
pub fn probe(rt: &Runtime) -> Result<Vec<u8>, String> {
    static PROGRAM: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    let build = || {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seccomp/probe.c");
        let out = rt.scratch("probe");
        let compiler = host::program("cc").ok_or("there is no C compiler")?;
        let built =
            run(command(compiler, &["-O1", "-static", "-pthread", "-o", &out.to_string_lossy(), source]));
        if !built.status.success() {
            return Err(format!("the probe does not compile here: {built}"));
        }
        fs::read(&out).map_err(|error| error.to_string())
    };
    PROGRAM.get_or_init(build).clone()
}

/// A bundle with the probe in it, which it runs with `words`.
pub fn probing(rt: &Runtime, words: &[&str]) -> Result<Bundle, Skip> {
    let bundle = rt.bundle(&[]);
    with_probe(rt, &bundle)?;
    let args: Vec<&str> = std::iter::once("/probe").chain(words.iter().copied()).collect();
    Ok(bundle.edit(|config| config["process"]["args"] = json!(args)))
}

/// Puts the probe into a bundle, as /probe.
pub fn with_probe(rt: &Runtime, bundle: &Bundle) -> Checked {
    use std::os::unix::fs::PermissionsExt;
    let program = match probe(rt) {
        Ok(program) => program,
        Err(why) => return skip(why),
    };
    let path = bundle.rootfs("probe");
    fs::write(&path, program).expect("writing the probe");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod of the probe");
    Ok(())
}

/// Runs the probe under a profile.
pub fn ask(rt: &Runtime, words: &[&str], filter: Value) -> Result<Finished, Skip> {
    let bundle = probing(rt, words)?.edit(|config| config["linux"]["seccomp"] = filter);
    Ok(rt.container(&bundle).run())
}

/// Skips where programs of 32-bit x86 can't be run.
pub fn needs_the_32_bit_gate(rt: &Runtime) -> Checked {
    if !cfg!(target_arch = "x86_64") {
        return skip("int 0x80 is x86's");
    }
    let ran = rt.container(&probing(rt, &["int80", "20"])?).run();
    if ran.out().starts_with("result ") { Ok(()) } else { skip("this kernel has no 32-bit system calls") }
}

/// A profile that allows all but mkdir, which gets this action.
pub fn on_mkdir(action: &str) -> Value {
    profile("SCMP_ACT_ALLOW", &[rule(&MKDIR, action)])
}
