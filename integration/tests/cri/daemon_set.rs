//! The installer's DaemonSet and the runtime class, as Kubernetes takes them: the fields of the manifests, and the pod that
//! the kubelet would make of them, on a containerd that knows of runc alone.
//!
//! The node is a directory with containerd's configuration. Its first process, to whose namespaces the pod goes to restart
//! containerd, is the pod's own container here, which notes what `systemctl` is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use coracle_integration::command::eventually;
use coracle_integration::engine::bench::{Bench, Check, Own};
use coracle_integration::engine::containerd::{SHIM, our_shim};
use coracle_integration::engine::cri::{
    ContainerConfig, Cri, Image, KeyValue, Mount, NODE, Namespaces, PodSecurity, State,
};
use coracle_integration::engine::pod::{NAMESPACE, Pod, daemon_of_runc};
use coracle_integration::place::Scratch;
use coracle_integration::{Runtime, named};
use nix::mount::{MsFlags, mount, umount};
use serde_json::Value;

pub fn checks() -> Vec<(&'static str, Check)> {
    named![the_manifests_have_the_fields_of_kubernetes, the_daemon_sets_pod_makes_a_node_run_coracle]
}

/// The image's name in the manifest, as its README has it replaced.
const IMAGE: &str = "registry.test/coracle-installer:test";

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn manifest(name: &str) -> Value {
    let path = top().join("integration/kubernetes").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let text = text.replace("REGISTRY/coracle-installer:TAG", IMAGE);
    serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An object with no other members than these.
#[track_caller]
fn object<'v>(value: &'v Value, members: &[&str]) -> &'v Value {
    let names = value.as_object().unwrap_or_else(|| panic!("no object: {value}")).keys();
    for name in names {
        assert!(members.contains(&name.as_str()), "{name} is none of {members:?}");
    }
    value
}

#[track_caller]
fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

#[track_caller]
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|one| text(one).to_owned()).collect()
}

/// By the reference of Kubernetes' API: `apps/v1` DaemonSet, `v1` PodSpec and Container, `node.k8s.io/v1` RuntimeClass.
fn the_manifests_have_the_fields_of_kubernetes(_: &Bench) {
    let class = manifest("runtime-class.yaml");
    object(&class, &["apiVersion", "kind", "metadata", "handler", "overhead", "scheduling"]);
    assert_eq!((text(&class["apiVersion"]), text(&class["kind"])), ("node.k8s.io/v1", "RuntimeClass"));
    object(&class["metadata"], &["name", "labels", "annotations"]);

    let set = manifest("installer.yaml");
    object(&set, &["apiVersion", "kind", "metadata", "spec"]);
    assert_eq!((text(&set["apiVersion"]), text(&set["kind"])), ("apps/v1", "DaemonSet"));
    object(&set["metadata"], &["name", "namespace", "labels", "annotations"]);
    let spec = object(&set["spec"], &["selector", "template", "updateStrategy", "minReadySeconds"]);
    let selector = object(&spec["selector"], &["matchLabels"]);
    let template = object(&spec["template"], &["metadata", "spec"]);
    assert_eq!(selector["matchLabels"], template["metadata"]["labels"], "the set must find its pods");
    let pod = object(
        &template["spec"],
        &[
            "nodeSelector",
            "tolerations",
            "automountServiceAccountToken",
            "hostPID",
            "initContainers",
            "containers",
            "volumes",
            "priorityClassName",
        ],
    );
    let mut volumes = Vec::new();
    for volume in list(&pod["volumes"]) {
        object(object(volume, &["name", "hostPath"]).get("hostPath").expect("hostPath"), &["path", "type"]);
        volumes.push(text(&volume["name"]));
    }
    for container in list(&pod["initContainers"]).iter().chain(list(&pod["containers"])) {
        object(
            container,
            &["name", "image", "env", "command", "args", "securityContext", "volumeMounts", "resources"],
        );
        assert_eq!(text(&container["image"]), IMAGE);
        let rights = ["privileged", "allowPrivilegeEscalation", "readOnlyRootFilesystem"];
        for (_, right) in object(&container["securityContext"], &rights).as_object().expect("an object") {
            assert!(right.is_boolean(), "{right}");
        }
        for variable in container["env"].as_array().into_iter().flatten() {
            object(variable, &["name", "value"]);
            assert!(variable["value"].is_string(), "a value is text: {variable}");
        }
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            object(mount, &["name", "mountPath", "readOnly"]);
            assert!(volumes.contains(&text(&mount["name"])), "{mount}");
        }
    }
}

/// What the Containerfile copies, into the image's root filesystem; the programs are those under test.
fn fill_image(rootfs: &Path) {
    let file = top().join("integration/kubernetes/Containerfile");
    for line in fs::read_to_string(file).expect("the Containerfile").lines() {
        if let Some(entrypoint) = line.strip_prefix("ENTRYPOINT ") {
            let words: Vec<String> = serde_json::from_str(entrypoint).expect("words");
            let mode = fs::metadata(rootfs.join(words[0].trim_start_matches('/'))).expect("the entrypoint");
            assert!(mode.permissions().mode() & 0o111 != 0, "{entrypoint}");
        }
        let Some(words) = line.strip_prefix("COPY ") else { continue };
        let mut words: Vec<&str> = words.split_whitespace().collect();
        let target = rootfs.join(words.pop().expect("a target").trim_start_matches('/'));
        fs::create_dir_all(&target).expect("making a directory of the image");
        for word in words {
            let source = match word {
                "target/release/coracle" => Runtime::binary_under_test(),
                "target/release/containerd-shim-coracle-v2" => our_shim().expect("the shim"),
                other => top().join(other),
            };
            let name = Path::new(word).file_name().expect("a name");
            fs::copy(&source, target.join(name)).unwrap_or_else(|error| panic!("{word}: {error}"));
        }
    }
}

/// Where the pod's own container notes what its `systemctl` was told: its root filesystem is read-only, and /dev is not.
const NOTES: &str = "dev/systemctl";

/// As long as this is there, its `systemctl` fails.
const FAILS: &str = "dev/systemctl-fails";

fn fill_node_process(rootfs: &Path) {
    let program = rootfs.join("usr/bin/systemctl");
    let script = format!("#!/bin/sh\ntest ! -e /{FAILS} || exit 1\necho \"$@\" >>/{NOTES}\n");
    fs::write(&program, script).expect("writing systemctl");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
}

/// The directory that stands for the node, with its `/etc/containerd` where programs look for it.
struct Node {
    directory: Scratch,
}

impl Node {
    fn new(bench: &Bench) -> Self {
        let directory = Scratch::new().expect("a scratch directory");
        let etc = directory.path().join("etc/containerd");
        fs::create_dir_all(&etc).expect("making a directory");
        fs::copy(bench.engine.path("config.toml"), etc.join("config.toml")).expect("copying config.toml");
        fs::create_dir_all("/etc/containerd").expect("making /etc/containerd");
        mount(Some(&etc), "/etc/containerd", None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .expect("a bind mount");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = umount("/etc/containerd");
    }
}

/// A container of the manifest, as the kubelet asks for it.
fn container(pod: &Pod, node: &Node, manifest: &Value) -> ContainerConfig {
    let mut config = pod.script(text(&manifest["name"]), "");
    config.image = Some(Image { image: text(&manifest["image"]).to_owned() });
    (config.command, config.args) = (texts(&manifest["command"]), texts(&manifest["args"]));
    let variables = manifest["env"].as_array().into_iter().flatten();
    config.envs = variables
        .map(|one| KeyValue { key: text(&one["name"]).to_owned(), value: text(&one["value"]).to_owned() })
        .collect();
    let mounts = manifest["volumeMounts"].as_array().into_iter().flatten();
    config.mounts = mounts
        .map(|one| Mount {
            container: text(&one["mountPath"]).to_owned(),
            host: node.directory.path().display().to_string(),
            readonly: false,
        })
        .collect();
    let security = config.linux.get_or_insert_default().security.get_or_insert_default();
    let has = |right: &str| manifest["securityContext"][right] == Value::Bool(true);
    security.privileged = has("privileged");
    security.readonly_rootfs = has("readOnlyRootFilesystem");
    security.no_new_privs = manifest["securityContext"]["allowPrivilegeEscalation"] == Value::Bool(false);
    config
}

fn the_daemon_sets_pod_makes_a_node_run_coracle(bench: &Bench) {
    // All nodes have their configuration at one place.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let bench = Own::like(bench, |version| daemon_of_runc(version, fill_node_process));
    bench.engine.import_with(NAMESPACE, "coracle-installer:test", &["/bin/sh"], fill_image);
    bench
        .ctr(&["--namespace", NAMESPACE, "images", "tag", "docker.io/library/coracle-installer:test", IMAGE])
        .ok();
    fs::remove_file(bench.engine.path("bin").join(SHIM)).expect("nobody has installed the shim yet");
    let node = Node::new(&bench);
    let handler = manifest("runtime-class.yaml");
    let handler = text(&handler["handler"]);
    assert!(Pod::try_run(&bench, handler, |_| ()).is_err(), "nobody has installed it yet");

    let set = manifest("installer.yaml");
    let spec = &set["spec"]["template"]["spec"];
    assert_eq!(text(&spec["volumes"][0]["hostPath"]["path"]), "/");
    assert_eq!(spec["hostPID"], true);
    let pod = Pod::try_run(&bench, "runc", |config| {
        // The pod's processes in the place of the host's.
        let namespaces = Namespaces { pid: 0, ..Namespaces::default() };
        let security = PodSecurity { namespaces: Some(namespaces), privileged: true };
        config.linux.get_or_insert_default().security = Some(security);
    });
    let pod = pod.unwrap_or_else(|status| panic!("RunPodSandbox: {status:?}"));
    assert_ne!(
        pod.config
            .linux
            .as_ref()
            .and_then(|linux| linux.security.as_ref()?.namespaces.as_ref())
            .map(|n| n.pid),
        Some(NODE)
    );
    let node_process = PathBuf::from(format!("/proc/{}/root", pod.pid(&pod.id)));
    let notes = || fs::read_to_string(node_process.join(NOTES)).unwrap_or_default();
    let install = || {
        let init = pod.start(&container(&pod, &node, &spec["initContainers"][0]));
        let (status, _) = pod.wait_for_end(&init);
        pod.cri.remove(&init).expect("RemoveContainer");
        status
    };
    // containerd can't be restarted; then it can, as the kubelet tries again; and again as after a restart of the node.
    fs::write(node_process.join(FAILS), "").expect("writing a file");
    assert_ne!(install(), 0, "{:?}", pod.log("install"));
    fs::remove_file(node_process.join(FAILS)).expect("removing a file");
    for _ in 0..2 {
        assert_eq!(install(), 0, "{:?}", pod.log("install"));
        assert_eq!(notes(), "restart containerd\n");
    }
    let files: Vec<_> = fs::read_dir(node.path("etc/containerd")).expect("a directory").flatten().collect();
    assert_eq!(files.len(), 2, "config.toml and coracle.toml: {files:?}");
    let installed = pod.start(&container(&pod, &node, &spec["containers"][0]));
    for (name, own) in [("coracle", Runtime::binary_under_test()), (SHIM, our_shim().expect("the shim"))] {
        let there = fs::read(node.path("usr/local/bin").join(name)).expect("an installed program");
        assert!(there == fs::read(own).expect("a program"), "{name} is another one");
    }

    // What systemctl was told, here done.
    fs::copy(node.path("etc/containerd/config.toml"), bench.engine.path("config.toml")).expect("copying");
    let found = bench.engine.path("bin").join(SHIM);
    std::os::unix::fs::symlink(node.path("usr/local/bin").join(SHIM), found).expect("linking the shim");
    bench.engine.restart();
    let cri = Cri::at(bench.engine.path("sock"));
    assert!(eventually(|| cri.answers()), "CRI does not answer: {}", bench.engine.log());
    assert_eq!(pod.cri.status(&installed).map(|status| status.state).ok(), Some(State::Running as i32));
    let user =
        Pod::try_run(&bench, handler, |_| ()).unwrap_or_else(|status| panic!("RunPodSandbox: {status:?}"));
    let one = user.sleeping("one");
    assert_eq!(user.exec(&one, "echo here"), "here\n");
    let shims = user.shims();
    assert!(shims.len() == 1 && shims[0].1.contains(SHIM), "{shims:?}");
    user.end();

    // And away again, as the README has it.
    let mut away = container(&pod, &node, &spec["initContainers"][0]);
    away.args = vec!["/coracle/install --uninstall /host".to_owned()];
    let away = pod.start(&away);
    assert_eq!(pod.wait_for_end(&away), (0, "Completed".to_owned()), "{:?}", pod.log("install"));
    assert!(!node.path("usr/local/bin").join(SHIM).exists());
    let left = fs::read_to_string(node.path("etc/containerd/config.toml")).expect("config.toml");
    assert!(!left.contains("coracle"), "{left}");
    pod.end();
}
