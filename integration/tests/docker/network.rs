//! Docker's networks: bridges with names, containers that come and go, published ports.

use coracle_integration::command::{eventually, run};
use coracle_integration::engine::docker::{Container, Docker};

/// A network that is removed when dropped; declared before its containers, so that it goes after them.
struct Network<'d> {
    docker: &'d Docker,
    name: String,
}

impl<'d> Network<'d> {
    #[track_caller]
    fn new(docker: &'d Docker) -> Self {
        let name = format!("net-{}", docker.container().name);
        docker.call(&["network", "create", &name]).ok();
        Self { docker, name }
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        let _ = self.docker.call(&["network", "rm", &self.name]);
    }
}

/// A web server that answers `/` with a word.
const SERVER: &str = "mkdir -p /www; echo served > /www/index.html; exec httpd -f -p 80 -h /www";

/// Demands that one container gets the word from another, by this name.
#[track_caller]
fn reaches(one: &Container, name: &str) {
    let url = format!("http://{name}/");
    let get = || one.exec(&[], &["wget", "-q", "-O", "-", &url]);
    assert!(eventually(|| get().out() == "served"), "{}", get());
}

pub fn bridge_with_names(docker: &Docker) {
    let network = Network::new(docker);
    let server = docker.up(&["--network", &network.name, "--network-alias", "web"], SERVER);
    let client = docker.up(&["--network", &network.name], "sleep 1000");
    reaches(&client, "web");
    reaches(&client, &server.name);
    let other = docker.up(&["--network", "bridge"], "sleep 1000");
    other.exec(&[], &["wget", "-q", "-O", "-", "http://web/"]).fails();
}

pub fn connect_and_disconnect(docker: &Docker) {
    let network = Network::new(docker);
    let server = docker.up(&["--network", &network.name, "--network-alias", "web"], SERVER);
    let client = docker.up(&["--network", "bridge"], "sleep 1000");
    docker.call(&["network", "connect", &network.name, &client.name]).ok();
    reaches(&client, "web");
    docker.call(&["network", "disconnect", &network.name, &client.name]).ok();
    assert!(!client.exec(&[], &["ip", "-o", "link"]).ok().stdout.contains("eth1"));
    // A restart makes a network namespace anew.
    server.call("restart", &["--time", "0"], &[]).ok();
    docker.call(&["network", "connect", &network.name, &client.name]).ok();
    reaches(&client, "web");
}

pub fn published_ports(docker: &Docker) {
    let server = docker.up(&["--publish", "127.0.0.1::80"], SERVER);
    let published = server.call("port", &[], &["80"]).ok();
    let url = format!("http://{}/", published.out());
    // From the daemon's machine, through its proxy.
    let get = || run(docker.in_network("busybox", &["wget", "-q", "-O", "-", &url]));
    assert!(eventually(|| get().out() == "served"), "{}", get());
    server.call("stop", &["--time", "0"], &[]).ok();
    get().fails();
    server.call("start", &[], &[]).ok();
    let published = server.call("port", &[], &["80"]).ok();
    let url = format!("http://{}/", published.out());
    let get = || run(docker.in_network("busybox", &["wget", "-q", "-O", "-", &url]));
    assert!(eventually(|| get().out() == "served"), "{}", get());
}
