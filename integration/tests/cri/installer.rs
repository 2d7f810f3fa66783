//! The installer's script, on directories that stand for a node.

use std::fs;
use std::path::{Path, PathBuf};

use coracle_integration::command::{command, run};
use coracle_integration::engine::bench::{Bench, Check};
use coracle_integration::engine::containerd::Version;
use coracle_integration::named;
use coracle_integration::place::Scratch;

pub fn checks() -> Vec<(&'static str, Check)> {
    named![
        what_the_installer_writes_is_understood,
        the_installer_leaves_alone_what_is_not_its_own,
        the_installer_finds_out_who_manages_cgroups_and_keeps_options,
    ]
}

/// A node's root filesystem, and the installer beside two programs.
fn node(configuration: Option<&str>) -> (Scratch, PathBuf) {
    let scratch = Scratch::new().expect("a scratch directory");
    let (host, image) = (scratch.path().join("host"), scratch.path().join("image"));
    for directory in [&image, &host.join("etc/containerd")] {
        fs::create_dir_all(directory).expect("making a directory");
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes");
    for file in ["install", "containerd-2.toml", "containerd-3.toml"] {
        fs::copy(source.join(file), image.join(file)).expect("copying the installer");
    }
    for program in ["coracle", "containerd-shim-coracle-v2"] {
        fs::copy("/bin/true", image.join(program)).expect("copying a program");
    }
    if let Some(text) = configuration {
        fs::write(host.join("etc/containerd/config.toml"), text).expect("writing a configuration");
    }
    (scratch, image.join("install"))
}

fn what_the_installer_writes_is_understood(bench: &Bench) {
    let newest = bench.engine.version() == Version::V2_1;
    let own = "version = 3\n[debug]\nlevel = \"warn\"\n";
    for before in [None, Some("version = 2\n"), newest.then_some(own)] {
        let (scratch, install) = node(before);
        let host = scratch.path().join("host").display().to_string();
        assert_eq!(run(command(&install, &[&host])).ok().out(), "changed");
        assert_eq!(run(command(&install, &[&host])).ok().out(), "unchanged");
        assert!(scratch.path().join("host/usr/local/bin/containerd-shim-coracle-v2").is_file());
        let file = format!("{host}/etc/containerd/config.toml");
        let dump =
            run(command(bench.engine.program("containerd"), &["--config", &file, "config", "dump"])).ok();
        assert!(dump.stdout.contains("io.containerd.coracle.v2"), "{dump}");
        assert!(dump.stdout.contains("/etc/containerd/coracle.toml"), "{dump}");
        assert_eq!(run(command(&install, &["--uninstall", &host])).ok().out(), "changed");
        assert_eq!(fs::read_to_string(&file).expect("the configuration"), before.unwrap_or("version = 2\n"));
        assert!(!scratch.path().join("host/usr/local/bin/coracle").exists());
        assert!(!scratch.path().join("host/etc/containerd/coracle.toml").exists());
    }
}

fn the_installer_finds_out_who_manages_cgroups_and_keeps_options(_: &Bench) {
    let runc = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n";
    let systemd = format!("version = 2\n{runc}  SystemdCgroup = true\n");
    let other = "[plugins.x.containerd.runtimes.other.options]\n  SystemdCgroup = true\n";
    let found = [(systemd, "true"), (format!("version = 2\n{runc}{other}"), "false")];
    for (configuration, manages) in found {
        let (scratch, install) = node(Some(&configuration));
        let host = scratch.path().join("host");
        let (options, host) = (host.join("etc/containerd/coracle.toml"), host.display().to_string());
        let read = || fs::read_to_string(&options).expect("the options");
        let install = |value: &str| {
            let mut command = command(&install, &[&host]);
            command.env("SYSTEMD_CGROUP", value);
            run(command)
        };
        assert_eq!(install("").ok().out(), "changed");
        assert_eq!(read(), format!("SystemdCgroup = {manages}\n"));
        let edited = "NoPivotRoot = true\nSystemdCgroup = true\n";
        fs::write(&options, edited).expect("writing options");
        assert_eq!(install("").ok().out(), "unchanged");
        assert_eq!(read(), edited);
        assert_eq!(install("false").ok().out(), "unchanged", "shims read the options, not containerd");
        assert_eq!(read(), "NoPivotRoot = true\nSystemdCgroup = false\n");
        install("yes").fails_with("true or false");
    }
}

fn the_installer_leaves_alone_what_is_not_its_own(_: &Bench) {
    let foreign = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.coracle]\n";
    let refused = [("version = 1\n", "version 1"), ("root = \"/srv\"\n", "no version"), (foreign, "already")];
    for (text, why) in refused {
        let (scratch, install) = node(Some(text));
        let host = scratch.path().join("host");
        run(command(&install, &[&host.display().to_string()])).fails_with(why);
        assert_eq!(fs::read_to_string(host.join("etc/containerd/config.toml")).expect("still there"), text);
    }
    run(command(node(None).1, &["/nonesuch"])).fails_with("is not the root of a node");
}
