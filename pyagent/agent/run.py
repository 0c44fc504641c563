"""The composition root of the agent: builds everything, runs the loop, takes everything down again."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import threading
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Protocol

from pyagent import __version__
from pyagent.agent.announcer import AnnouncingFacts, MapRoom, cannot_listen, starting
from pyagent.agent.bind_address import BindAddress, bind
from pyagent.agent.clients import ClientAddressing
from pyagent.agent.config import AgentConfig
from pyagent.agent.config_watch import ConfigWatch
from pyagent.agent.effective_config import configz, described
from pyagent.agent.event_hub import EventHub
from pyagent.agent.facts import Facts
from pyagent.agent.flows import FlowKeeper
from pyagent.agent.happenings import change, noted, sockets_ended
from pyagent.agent.health import exposition, health_pages, metrics_pages
from pyagent.agent.health_check_ports import HealthCheckPorts
from pyagent.agent.http_exchange import Handler
from pyagent.agent.http_server import HttpServer
from pyagent.agent.inbox import Applied, Failed, FlowsCrowded, InterfacesChanged
from pyagent.agent.journal import Journal, Versions, in_turn
from pyagent.agent.kernel_reader import KernelReader
from pyagent.agent.local_api import Knowledge, LocalApi
from pyagent.agent.logs import set_up
from pyagent.agent.loop import Loop
from pyagent.agent.node_view import NodeView
from pyagent.agent.opt_out import OptOut, PodCgroupsChanged
from pyagent.agent.outside import OutsideKeeper
from pyagent.agent.stale import Judge, Reaper
from pyagent.agent.startup_taint import StartupTaint
from pyagent.agent.state_files import PROGRAMS
from pyagent.agent.supervision import supervised
from pyagent.agent.traffic import Traffic
from pyagent.agent.unforeseen import threads_watched
from pyagent.cluster.api_source import ApiSource, NodeChoice, Wanted, open_api_source
from pyagent.cluster.manifests import ManifestSource
from pyagent.datapath.layout import Feature
from pyagent.desired.narrow import narrowed
from pyagent.desired.nodes import Settings
from pyagent.desired.outside import read_outside
from pyagent.kernel.datapath import Datapath
from pyagent.kernel.heap import give_memory_back
from pyagent.kernel.map_set import is_in_use
from pyagent.kernel.mounts import cgroup2_root
from pyagent.kernel.node_addresses import AddressWatch, InterfaceAddress, node_addresses
from pyagent.kernel.pod_cgroups import PodCgroupWatch
from pyagent.kernel.program_cache import ProgramCache
from pyagent.kernel.readers import Readers
from pyagent.model.address import Protocol as Transport
from pyagent.model.address import is_link_local, is_loopback, parse_address
from pyagent.model.failures import InvalidField
from pyagent.model.kube_objects import SERVICE_KINDS, WORKLOAD_KINDS
from pyagent.model.source_events import Emit, Source

log = logging.getLogger(__name__)

GC_THRESHOLD = 50_000
"""Objects made between two collections: a list of 10,000 Services would otherwise cause hundreds."""


def run(config: AgentConfig) -> None:
    """Serve until SIGTERM or SIGINT; what is attached stays attached.

    Raises:
        KubesockError: it cannot start; the text has the remedy.
    """
    set_up(config.log_format, config.verbosity)
    for note in config.notes:
        log.info("%s", note)
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    give_memory_back()
    _prefer_others_when_memory_ends(config.oom_score_adj)
    # First what can be wrong about the command line: nothing is left behind then.
    source = _source(config, had_objects=is_in_use(config.bpffs))
    cgroup = config.cgroup or cgroup2_root()
    datapath = Datapath(
        config.bpffs,
        cgroup,
        config.map_sizes,
        unconnected_udp=config.udp == "all",
        cache=ProgramCache(config.state_dir / PROGRAMS),
        observing=config.observe,
        readers=Readers(config.readers_group),
    )
    opened = datapath.open()
    if opened.mounted:
        log.info("mounted a BPF file system at %s", opened.mounted)
    facts = AnnouncingFacts(config.node_name, stale_after=2 * config.sync_period, observing=config.observe)
    # Two servers: a slow scrape must not delay a health check.
    servers = HttpServer("health"), HttpServer("metrics")
    try:
        _serve(config, source, datapath, facts, servers, reused=opened.reused)
    finally:
        for server in servers:
            server.stop()
        datapath.close()


def _serve(
    config: AgentConfig,
    source: Source,
    datapath: Datapath,
    facts: AnnouncingFacts,
    servers: tuple[HttpServer, HttpServer],
    reused: bool,
) -> None:
    clients = ClientAddressing()
    hub = EventHub(datapath.maps, lambda wanted: loop.put(wanted), clients.find)
    facts.tell.send_to(lambda notice: hub.tell(noted(notice)))
    ports = HealthCheckPorts(servers[0], facts.healthy)
    node_view = NodeView(facts, ports, clients.start, of_cluster=config.manifests is None)
    versions = Versions()
    journal = Journal(versions.newest, tell=lambda entry: hub.tell(change(entry)))
    map_room = MapRoom(facts.tell, lambda: loop.usage)
    choice = read_outside(("off",) if config.observe else config.outside.split(","))
    packets = OutsideKeeper(
        datapath.outside,
        choice,
        lambda: datapath.attached,
        facts,
    )
    flows = FlowKeeper(datapath.outside, lambda: loop.put(FlowsCrowded()))
    after_plan = in_turn(clients.follow, node_view, journal, map_room, packets.follow)
    loop = _loop(config, datapath, facts, after_plan, api_servers(config, source), reused=reused)
    clients.tell(loop.put)
    loop.make_room_for_flows(lambda: flows.entries)
    reaper = _reaper(config, datapath, facts, loop, hub, flows)
    addresses = AddressWatch(lambda found: loop.put(_interfaces(config, found)))
    recorders = _recorders(source, facts)
    traffic = _traffic(config, datapath, loop, reused=reused)
    _listen(config, servers, facts, loop, datapath, traffic, flows)
    knowledge = Knowledge(
        loop.ask,
        datapath.raw,
        lambda: datapath.maps.items("source_ranges"),
        lambda: [*loop.altered_besides_plans(), *datapath.outside.faults()],
        facts,
        journal,
        lambda: described(config),
        hub,
    )
    local_api = LocalApi(config.state_dir, config.bpffs, knowledge, config.readers_group)
    opting_out = _opting_out(config, datapath, facts, loop, clients)
    started: list[Threaded] = []
    with threads_watched(lambda error: loop.put(Failed(error))):
        try:
            watching = supervised(facts, lambda: loop.ask(lambda _standing: None))
            emit, untainting = _untainting(config, source, facts, versions.noted(loop.emit))
            others = (*opting_out, *recorders, *_configuration(config, loop), *watching, *untainting)
            ending = () if config.observe else (reaper,) if choice.is_off else (reaper, flows)
            threads: tuple[Threaded, ...] = (*servers, addresses, packets, *ending, hub, local_api, *others)
            for thread in threads:
                thread.start()
                started.append(thread)
            source.start(emit)
            _on_signals(loop)
            loop.run()
        finally:
            source.stop()
            clients.stop()
            for thread in started:
                thread.stop()


def _configuration(config: AgentConfig, loop: Loop) -> tuple[Threaded, ...]:
    """A changed file ends the agent, as it ends kube-proxy."""
    if not config.config:
        return ()
    return (ConfigWatch(Path(config.config), lambda error: loop.put(Failed(error))),)


def _opting_out(
    config: AgentConfig, datapath: Datapath, facts: Facts, loop: Loop, clients: ClientAddressing
) -> tuple[Threaded, ...]:
    """What must run for `--opt-out=on`."""
    if config.opt_out != "on":
        return ()
    loop.leave_alone(OptOut(config.node_name, datapath.maps, facts))
    clients.start()
    return (PodCgroupWatch(datapath.cgroup, lambda found: loop.put(PodCgroupsChanged(found))),)


def _recorders(source: Source, facts: AnnouncingFacts) -> tuple[Threaded, ...]:
    """Who tells the cluster what an operator must act on; nobody without a cluster."""
    if not isinstance(source, ApiSource):
        return ()
    recorder = source.event_recorder()
    facts.tell.send_to(recorder.put)
    facts.tell(starting(__version__))
    return (recorder,)


def _untainting(
    config: AgentConfig, source: Source, facts: Facts, emit: Emit
) -> tuple[Emit, tuple[Threaded, ...]]:
    """Where the source puts its events so that `--startup-taint` is noticed, and who removes it."""
    if not config.startup_taint or config.observe:
        return emit, ()
    if not isinstance(source, ApiSource):
        log.warning("--startup-taint %s: without a cluster nobody taints", config.startup_taint)
        return emit, ()
    key = config.startup_taint
    taint = StartupTaint(key, config.node_name, source.node_taint(key), lambda: facts.ready()[0])
    return taint.noted(emit), (taint,)


class Threaded(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


def _prefer_others_when_memory_ends(score: int) -> None:
    try:
        Path("/proc/self/oom_score_adj").write_text(str(score))
    except OSError as error:
        log.info("oom_score_adj stays as it is: %s; needs CAP_SYS_RESOURCE", error.strerror)


def _source(config: AgentConfig, had_objects: bool) -> Source:
    workloads = config.opt_out == "on"
    narrow = partial(narrowed, own_node=config.node_name)
    if config.manifests is not None:
        kinds = SERVICE_KINDS | WORKLOAD_KINDS if workloads else SERVICE_KINDS
        return ManifestSource(config.manifests, kinds=kinds, narrow=narrow)
    nodes: dict[str, NodeChoice] = {"on": "all", "off": "own", "auto": "auto"}
    return open_api_source(
        config.kubeconfig,
        Wanted(config.node_name, nodes[config.remote_node_ports], workloads),
        config.api_server,
        config.state_dir,
        had_objects=had_objects,
        narrow=narrow,
    )


def _loop(
    config: AgentConfig,
    datapath: Datapath,
    facts: Facts,
    applied: Applied,
    protected: frozenset[bytes],
    reused: bool,
) -> Loop:
    features = Feature.HOST_ONLY if config.host_only else Feature(0)
    features |= Feature.OPT_OUT if config.opt_out == "on" else Feature(0)
    first, last = map(int, config.outside_source_ports.split("-"))
    datapath.store_node(features, (first, last))
    programs: Future[None] | None = None
    if not (config.observe or (datapath.keeps_programs and datapath.adopt_programs())):
        programs = _in_thread(datapath)
    interfaces = _interfaces(config, node_addresses())
    settings = Settings(
        node_name=config.node_name,
        interface_addresses=interfaces.addresses,
        link_local_addresses=interfaces.link_local,
        bind_address=config.bind_address,
        node_port_ranges=config.node_port_addresses,
        remote_node_ports=config.remote_node_ports != "off",
        external_ip_cidrs=config.external_ip_cidrs,
        service_cidrs=config.service_cidrs,
        protected_addresses=protected,
    )
    return Loop(
        datapath,
        settings,
        facts,
        reused=reused,
        programs=programs,
        applied=applied,
        least_seconds=config.min_sync_period,
    )


def _in_thread(datapath: Datapath) -> Future[None]:
    """The programs are compiled while the lists are on their way."""
    future: Future[None] = Future()

    def load() -> None:
        try:
            datapath.load_programs()
        except BaseException as error:  # noqa: BLE001  the loop raises it again
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=load, name="loader", daemon=True).start()
    return future


def _reaper(
    config: AgentConfig,
    datapath: Datapath,
    facts: Facts,
    loop: Loop,
    hub: EventHub,
    flows: FlowKeeper,
) -> Reaper:
    protocols = frozenset({Transport.UDP, Transport.TCP} if config.terminate_tcp else {Transport.UDP})
    reaper = Reaper(
        datapath.open_connections,
        facts,
        loop.put,
        protocols,
        lambda ended: hub.tell(*sockets_ended(ended)),
        flows,
    )
    loop.end_stale_sockets(reaper, Judge(config.udp_grace))
    return reaper


def _listen(
    config: AgentConfig,
    servers: tuple[HttpServer, HttpServer],
    facts: AnnouncingFacts,
    loop: Loop,
    datapath: Datapath,
    traffic: Traffic,
    flows: FlowKeeper,
) -> None:
    reader = KernelReader(
        config.bpffs, datapath.cgroup, lambda: loop.usage, lambda: flows.entries, traffic, config.metrics_by
    )
    pages: tuple[tuple[str, BindAddress | None, Handler], ...] = (
        ("health", config.healthz_bind_address, health_pages(facts)),
        (
            "metrics",
            config.metrics_bind_address,
            metrics_pages(
                exposition(facts, reader.read), lambda: configz(config), profiling=config.profiling
            ),
        ),
    )
    for server, (what, where, handler) in zip(servers, pages, strict=True):
        if where is not None and not server.listen_when_possible(
            partial(bind, where), handler, f"{what} at {where}", hard_fail=config.bind_address_hard_fail
        ):
            facts.tell(cannot_listen(what, str(where)))


def _traffic(config: AgentConfig, datapath: Datapath, loop: Loop, reused: bool) -> Traffic:
    traffic = Traffic()
    if config.metrics_bind_address is not None and config.metrics_by != "none":
        if reused:
            traffic.start(datapath.maps)
        loop.before_ids_are_cleared(lambda freed: traffic.give_up(datapath.maps, freed))
    return traffic


def _on_signals(loop: Loop) -> None:
    def stop(number: int, _frame: object) -> None:
        log.info("%s: stopping; what is attached goes on serving", signal.Signals(number).name)
        loop.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log.info("kubesock agent, process %d", os.getpid())


def api_servers(config: AgentConfig, source: Source) -> frozenset[bytes]:
    """Those that flag and credentials name, if by address; what is behind default/kubernetes comes later."""
    named = [config.api_server or "", source.server if isinstance(source, ApiSource) else ""]
    found = set()
    for host in (text.rpartition(":")[0].strip("[]") for text in named):
        with contextlib.suppress(InvalidField):  # a name, or nothing
            found.add(parse_address(host))
    return frozenset(found)


def _interfaces(config: AgentConfig, found: frozenset[InterfaceAddress]) -> InterfacesChanged:
    addresses = frozenset(one.address for one in found)
    link_local = frozenset(filter(is_link_local, addresses))
    usable = (a for a in addresses - link_local if config.localhost_node_ports or not is_loopback(a))
    return InterfacesChanged(frozenset(usable), link_local)
