"""Configuration: what is composed, and that everything impossible is refused in one line."""

import re
import shutil
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from omegaconf import OmegaConf

import refusals
import resnet_repro.compose
import resnet_repro.conf
from resnet_repro import paths
from resnet_repro.analysis.load import changed_keys
from resnet_repro.analysis.logged_run import Run
from resnet_repro.compose import compose_run, compose_sweep, make_job
from resnet_repro.conf import changed_from_experiment, names, protocol
from resnet_repro.items.deviations import _change
from resnet_repro.mirror import run_id
from resnet_repro.options import HOW, WHAT, WHERE, WHO, ConfigError
from resnet_repro.runs.folder import find_runs
from resnet_repro.same_run import differences, flatten, roles

RUN = ("experiment=cifar10_plain20",)
refused = partial(refusals.refused, kind=ConfigError)


def test_experiment_is_the_paper_by_default():
    config = compose_run("experiment=cifar10_resnet56")
    assert (config.model.depth, config.model.shortcut) == (56, "A")
    assert (config.recipe.batch_size, config.recipe.max_iters) == (128, 64_000)
    assert config.recipe.milestones == [32_000, 48_000]
    assert (config.recipe.lr, config.recipe.momentum) == (0.1, 0.9)
    assert config.recipe.weight_decay == 1e-4
    assert config.name == "cifar10_resnet56"
    longer = compose_run("experiment=cifar10_resnet110", "profile=quick", "recipe.max_iters=500")
    assert longer.recipe.max_iters == 500  # the command line wins
    assert compose_run("experiment=cifar10_resnet56", "recipe.max_iters=64_000") == config


@pytest.mark.parametrize("experiment", names("experiment"))
def test_every_experiment_composes_in_every_profile(experiment):
    """In each without Hydra, in one of them, another for each experiment, also by Hydra."""
    plain = {profile: protocol(experiment, profile) for profile in names("profile")}
    assert None not in plain.values()
    profile = list(plain)[names("experiment").index(experiment) % len(plain)]
    config = compose_run(f"experiment={experiment}", f"profile={profile}")
    assert config == plain[profile]
    net = experiment.split("_")[1]
    assert net.endswith(str(config.model.depth))
    assert (config.model.shortcut == "none") == net.startswith("plain")


VARIANTS = [name for name in names("experiment") if name.rsplit("_", 1)[0] in names("experiment")]


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_change_exactly_one_choice_of_their_baseline(variant):
    baseline = protocol(variant.rsplit("_", 1)[0])
    differing = differences(baseline.as_mapping(), protocol(variant).as_mapping())
    assert len(differing.keys() - {"experiment", "name"}) == 1


def test_warm_up_is_for_110_and_1202_only():
    for experiment in names("experiment"):
        config = protocol(experiment)
        if experiment.startswith("cifar10_") and not experiment.endswith("_warmup"):
            assert config.recipe.warmup == ("error80" if config.model.depth >= 110 else "none")


# Each word is refused with a line that names the key, the value and what is allowed.
REFUSED = [
    ("recipe.lrr=0.3", "unknown option 'recipe.lrr'; did you mean 'recipe.lr'?"),
    ("lr=0.3", "unknown option 'lr'; did you mean 'recipe.lr'?"),
    ("model.depht=20", "unknown option 'model.depht'; did you mean 'model.depth'?"),
    ("+new=1", "unknown option 'new'; allowed: experiment, name"),
    ("++recipe.warmpu=none", "unknown option 'recipe.warmpu'; did you mean 'recipe.warmup'?"),
    ("recipe.lr=", "recipe.lr='': must be a finite number > 0"),
    ("seed=0,1", "seed=0,1: several values for one run; add -m"),
    ("runs_dir=/a,b", "runs_dir=/a,b: several values for one run; add -m"),
    ("model=resnet51", "model=resnet51: is a group of options"),
    ("recipe.max_iters=100", "recipe.milestones=[32000, 48000]: must all be below"),
    ("model.bn_group=48", "model.bn_group=48: must divide recipe.batch_size=128"),
    ("data=imagenett", "data=imagenett: did you mean imagenet?"),
    ("recipe.lr=${nope}", "recipe.lr: cannot be resolved"),
    ("recipe.lr=${oc.env:NOT_THERE}", "recipe.lr: cannot be resolved"),
    ("recipe.lr='0.1", "recipe.lr='0.1: cannot be read"),
    ("seed=[1", "seed=[1: cannot be read"),
    ("name=a b", "name=a b: must be a name of letters"),
]
MUST_BE = {
    "a finite number > 0": "recipe.lr=abc recipe.lr=null recipe.lr=0 recipe.lr=-0.1 recipe.lr=nan "
    "recipe.lr=1e400 recipe.lr='0.1' trainer.timeout_seconds=0",
    "a finite number >= 0": "recipe.weight_decay=-1",
    "a finite number in [0, 1)": "recipe.momentum=1.0",
    "an integer in": f'seed=1.5 seed=true seed=-1 seed={2**64} seed="1"',
    "an integer >= 1": "recipe.max_iters=0 recipe.batch_size=0 recipe.patience=0 trainer.devices=0",
    "an integer >= -1": "trainer.loader_workers=-2",
    "true or false": "recipe.nesterov=2",
    "increasing": "recipe.milestones=[150,100] recipe.milestones=[100,a]",
    "a name of letters": "name=../up name=null",
    "one of none, error80, iters400": "recipe.warmup=cosin",
    "one of milestones, plateau": "recipe.schedule=plato",
    "one of stop, skip": "data.on_corrupt=ignore",
    "one of paper, quick, short, smoke": "profile=fast",
    "one of auto, fp32, tf32, bf16": "trainer.precision=fp16",
    "one of auto, always, never": "trainer.graph=true",
    "one of local, external": "trainer.launcher=slurm",
}
REFUSED += [
    (word, f"{word}: must be {allowed}")
    for allowed, words in MUST_BE.items()
    for word in words.split()
]


@pytest.mark.parametrize(("word", "message"), REFUSED, ids=[word for word, _ in REFUSED])
def test_refused(word, message):
    refused(compose_run, *RUN, word, match=f"^{re.escape(message)}")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("cifar10_plain20 data=imagenet", "model.family=cifar: data.name=imagenet needs the imag"),
        ("cifar10_plain20 data=folder", "model.family=cifar: data.name=folder needs the imagenet"),
        ("cifar10_plain20 data=tiny_imagenet", "model.family=cifar: data.name=tiny_imagenet needs"),
        ("imagenet_plain18 data.train_split=45k", "data.train_split=45k: only for data.name=cif"),
        ("imagenet_plain18 data.pad=zero", "data.pad=zero: crops of data.name=imagenet lie within"),
        ("imagenet_plain18 data.border=8", "data.border=8: crops of data.name=imagenet lie within"),
        ("imagenet_plain18 model.bn_group=32 data.on_corrupt=skip",
         "data.on_corrupt=skip: not with model.bn_group=32"),
        ("imagenet_plain18 trainer.devices=257", "trainer.devices=257: must be at most recipe.bat"),
        ("imagenet_plain18 recipe.schedule=plateau recipe.milestones=[]",
         "recipe.schedule=plateau: needs recipe.milestones"),
        ("cifar10_plain20 trainer.sync_bn=true model.bn_group=8",
         "trainer.sync_bn=true: not with model.bn_group=8"),
        ("cifar10_plain20 trainer.devices=4 model.bn_group=64",
         "model.bn_group=64 x trainer.devices=4: must divide recipe.batch_size=128"),
        *((f"cifar10_plain20 trainer.{word} trainer.devices=2",
           f"trainer.{word}: only with trainer.devices=1")
          for word in ("graph=always", "compile=always", "concurrent=2")),
    ],
)  # fmt: skip
def test_what_cannot_go_together_is_refused(args, message):
    refused(compose_run, *f"experiment={args}".split(), match=f"^{re.escape(message)}")


def test_unknown_experiment_lists_what_there_is():
    for word, message in (
        ("experiment=net", "experiment=net: must be one of .*cifar10_resnet20"),
        ("experiment=cifar10_resent20", r"cifar10_resent20: did you mean cifar10_resnet20\?$"),
        ("profile=quick", "experiment is not set; one of .*cifar10_plain20"),
        ("item=fig1", "add -m"),
    ):
        refused(compose_run, word, match=message)


@pytest.mark.parametrize(
    ("args", "name"),
    [
        ("recipe.lr=0.05", "cifar10_plain20-lr0.05"),
        ("recipe.lr=0.05 recipe.nesterov=true", "cifar10_plain20-lr0.05-nesterov_true"),
        ("model.shortcut=B", "cifar10_plain20-shortcut_B"),
        ("recipe.milestones=[5,8] recipe.max_iters=10",
         "cifar10_plain20-max_iters10-milestones5+8"),
        ("recipe.milestones=[]", "cifar10_plain20-milestones_none"),
        ("data=synthetic profile=smoke", "cifar10_plain20-data_synthetic"),
        ("recipe=cifar10_quick", "cifar10_plain20-clean_train_images10000-every_iters100-"),
        ("recipe.lr=0.05 name=mine", "mine"),
        # What is not computed, or is the experiment's own value, makes no variant.
        ("recipe.lr=0.1 profile=quick", "cifar10_plain20"),
        ("trainer.threads=3 data.root=x evaluation.batch_size=7", "cifar10_plain20"),
        ("seed=3 trainer.precision=fp32", "cifar10_plain20"),
    ],
)  # fmt: skip
def test_a_variant_is_named_by_what_it_changes(args, name):
    config = compose_run(*RUN, *args.split())
    assert config.name.startswith(name) if name.endswith("-") else config.name == name
    assert bool(changed_from_experiment(config.as_mapping())) == (name != "cifar10_plain20")


@pytest.mark.parametrize("typed", ["name=a-${recipe.lr}", 'name="a-${recipe.lr}"'])
def test_a_name_is_made_of_swept_values(typed):
    jobs = compose_sweep([*RUN, "recipe.lr=0.05,0.1", typed])
    assert [job.config.name for job in jobs] == ["a-0.05", "a-0.1"]
    assert compose_run(*RUN, typed).name == "a-0.1"


def test_too_long_a_name_ends_in_a_digest_of_all_that_is_changed():
    args = [f"{key}=0.{digit * 9}" for digit, key in zip("12345", LONG, strict=True)]
    config = compose_run(*RUN, *args)
    assert len(config.name) <= 64
    assert re.fullmatch(r"cifar10_plain20-bn_eps0\.1{9}(-.*)?-[0-9a-f]{8}", config.name)
    other = compose_run(*RUN, *args[:-1], f"{LONG[-1]}=0.6")
    assert other.name != config.name == compose_run(*RUN, *reversed(args)).name


LONG = ("model.bn_eps", "model.bn_momentum", "recipe.gamma", "recipe.warmup_lr", "recipe.momentum")


@pytest.mark.parametrize("word", ["recipe.lr=0.2", "experiment=cifar10_plain32"])
def test_no_variant_takes_the_name_of_an_experiment(word):
    message = "name=cifar10_plain20: is the name of an experiment"
    refused(compose_run, *RUN, word, "name=cifar10_plain20", match=message)
    assert compose_run(*RUN, "name=cifar10_plain20") == compose_run(*RUN)


def test_a_logged_run_stands_for_its_experiment_if_it_computes_the_same():
    config = compose_run(*RUN, "profile=quick").as_mapping()
    del config["model"]["gate_bias"], config["probes"]  # logged before there were these keys
    assert changed_from_experiment(config) == {}
    config["recipe"] |= {"lr": 0.3}
    assert changed_from_experiment(config) == {"recipe.lr": (0.1, 0.3)}
    assert changed_from_experiment(config | {"experiment": "mine"}) is None
    logged = [run.config() for run in find_runs(paths.REPOSITORY / "results" / "runs")]
    named = [config for config in logged if config["name"] == config["experiment"]]
    assert len(named) > 10
    for config in named:
        assert changed_from_experiment(config) == {}, (config["profile"], config["name"])


def test_a_sweep_over_any_keys_has_a_run_of_each_and_is_checked_whole_before_it_starts():
    jobs = compose_sweep(["item=fig1", "seed=0,1", "profile=quick"])
    nets = [(f"cifar10_plain{depth}", seed) for depth in (20, 56) for seed in (0, 1)]
    assert [(job.config.name, job.config.seed) for job in jobs] == nets
    plain110 = [job.config.name for job in compose_sweep(["experiment=glob(*_plain110*)"])]
    assert plain110 == ["cifar10_plain110", "cifar10_plain110_fp32"]
    jobs = compose_sweep([
        *RUN, "profile=quick", "seed=range(0,2)", "recipe.lr=0.1,0.05", "model.depth=20,8",
    ])  # fmt: skip
    assert len({job.folder.path for job in jobs}) == len(jobs) == 8
    variants = {f"{depth}{lr}" for depth in ("", "-depth8") for lr in ("", "-lr0.05")}
    assert {job.config.name.removeprefix("cifar10_plain20") for job in jobs} == variants
    assert len(compose_sweep([*RUN, "seed=0,0", "profile=quick"])) == 1
    refused(compose_sweep, ["item=fig1", "recipe.lr=0.1,-1"], match="recipe.lr=-1")
    refused(compose_sweep, ["experiment=glob(cifar100_*)"], match="empty")


@pytest.mark.parametrize("word", ["recipe.lr=0.1,0.05", "trainer.threads=1,2"])
def test_runs_of_a_sweep_that_share_a_name_are_refused_before_the_first(word):
    key, _, values = word.partition("=")
    one, other = values.split(",")
    assert refused(compose_sweep, [*RUN, word, "name=both"], match="^name=both") == (
        f"name=both: two runs of the sweep have it ({key}={one} and {other}); "
        f"name them apart: 'name=both-${{{key}}}'"
    )
    assert len(compose_sweep([*RUN, word, f"name=both-${{{key}}}"])) == 2


def test_a_folder_that_was_renamed_holds_the_same_run(tmp_path):
    job = make_job(*RUN, "recipe.lr=0.05", f"runs_dir={tmp_path}")
    job.folder.write_config(job.config.as_mapping() | {"name": "before"})
    assert not job.is_done()


def test_an_experiment_that_only_hydra_reads_is_still_composed(monkeypatch):
    monkeypatch.setattr(resnet_repro.compose, "protocol", lambda *_: None)
    assert compose_run(*RUN, "recipe.lr=0.05").name == "cifar10_plain20-lr0.05"
    assert make_job(*RUN, "recipe.lr=0.05").deviations == {
        "name": ["cifar10_plain20", "cifar10_plain20-lr0.05"], "recipe.lr": [0.1, 0.05],
    }  # fmt: skip


OWN = {  # experiments with defaults that those of the paper do not have
    "profile": "defaults: [cifar10_plain20, override /profile: short]",
    "remark": "defaults: [cifar10_plain20]  # its seeds by ${seed}",
    "order": "defaults: [_self_, cifar10_plain20]\nmodel: {depth: 56}",
    "logger": "defaults: [cifar10_plain20, override /logger: wandb]",
    "root": "defaults: [cifar10_plain20]\ndata: {root: '${oc.env:HOME}/x'}",
    "sweep": "defaults: [cifar10_plain20]\n"
    "hydra: {sweeper: {params: {recipe.lr: '0.05,0.1', seed: 'range(0,3)'}}}",
    "label": "defaults: [cifar10_plain20]\nprofile: quick",
}


def test_an_experiment_of_ones_own_is_read_as_hydra_composes_it(tmp_path, monkeypatch):
    conf = shutil.copytree(paths.CONF, tmp_path / "conf")
    for module in (resnet_repro.compose, resnet_repro.conf):
        monkeypatch.setattr(module, "CONF", conf)
    for name, text in OWN.items():
        text = f"# @package _global_\n{text}\n"
        (conf / "experiment" / f"own_{name}.yaml").write_text(text)
    for name in ("profile", "remark", "order", "logger", "sweep"):
        for profile in ("paper", "quick"):
            composed = compose_run(f"experiment=own_{name}", f"profile={profile}")
            assert protocol(f"own_{name}", profile) == composed
            assert composed.name == f"own_{name}"
    assert protocol("own_root") is None
    assert compose_run("experiment=own_root").data.root.endswith("/x")
    sweep = ["experiment=own_sweep", "profile=quick"]
    assert len(compose_sweep(sweep)) == 6
    assert [job.config.seed for job in compose_sweep([*sweep, "seed=7"])] == [7, 7]
    message = "profile=quick: this only names it, the recipe is paper"
    refused(compose_run, "experiment=own_label", match=message)


AS_TYPED = [
    "name=12e4567", "name=inf", "name=007", "name=é", "+name=1e5", "runs_dir=/a=b",
    "runs_dir=~/x y", "runs_dir=it's", "runs_dir=C:(x)", "runs_dir=12", "data.root=/ä/{b}",
    "logger.project=1e3",
]  # fmt: skip
QUOTED = [
    ("name='quoted'", "quoted"),
    ("runs_dir='/a,b'", "/a,b"),
    ("name=lr${recipe.lr}", "lr0.1"),
]


@pytest.mark.parametrize(
    ("word", "value"), [*((word, word.partition("=")[2]) for word in AS_TYPED), *QUOTED]
)
def test_text_is_taken_as_typed(word, value):
    key = word.partition("=")[0].removeprefix("+")
    assert flatten(compose_run(*RUN, word).as_mapping())[key] == value


def test_runs_and_data_are_the_repositorys_wherever_a_command_is_called_or_where_one_says(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("HOME", "/home/me")
    for variable in ("RESNET_REPRO_RUNS", "RESNET_REPRO_DATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(paths.REPOSITORY)
    assert (paths.runs(), paths.data()) == (Path("results/runs"), Path("data"))
    monkeypatch.chdir(tmp_path)
    assert paths.runs() == paths.REPOSITORY / "results" / "runs"
    assert paths.data() == paths.REPOSITORY / "data"
    monkeypatch.setenv("RESNET_REPRO_RUNS", "~/runs")
    assert paths.runs() == Path("/home/me/runs")
    assert paths.runs("here") == Path("here")
    assert paths.data("~") == Path("/home/me")
    assert make_job(*RUN, "runs_dir=~/x").folder.path.parts[:4] == ("/", "home", "me", "x")
    refused(paths.expand, "~nobody_here/x", match="~nobody_here/x: ")


def with_other(config, key):
    other = OmegaConf.create(config)
    value = OmegaConf.select(other, key)
    OmegaConf.update(other, key, not value if isinstance(value, bool) else f"{value}1")
    return OmegaConf.to_container(other)


def logged(config, precision="bf16"):
    meta = {"net": {"label": "plain-20"}, "precision": precision}
    names = {key: config[key] for key in ("experiment", "name", "profile")}
    where = Path(str(config["seed"]))
    return Run(where, **names, seed=0, config=config, meta=meta, status={}, metrics=pd.DataFrame())


@pytest.mark.parametrize("key", roles())
def test_one_property_of_a_key_drives_every_comparison(key):
    config = compose_run(*RUN).as_mapping()
    other = with_other(config, key)
    role = roles()[key]
    assert role in (WHO, WHAT, HOW, WHERE)
    assert bool(differences(config, other)) == (role in (WHO, WHAT))  # resuming
    assert (run_id(config) != run_id(other)) == (role in (WHO, WHAT))  # Weights & Biases
    first, second = logged(config), logged(other, "fp32")
    assert bool(changed_keys(first, second)) == (role == WHAT)  # averaging
    assert (_change(first, second) != second.experiment) == (role == WHAT)


def test_roles_of_keys_that_decide_between_runs():
    """By name, so that a key does not change sides unnoticed."""
    who, how, where = (
        {key for key, found in roles().items() if found == role} for role in (WHO, HOW, WHERE)
    )
    assert who == set(compose_run(*RUN).identity)
    assert where == {
        "runs_dir", "data.root", "data.source", "logger.kind", "logger.mode", "logger.project",
    }  # fmt: skip
    assert how == {
        "data.on_corrupt", "evaluation.batch_size", "probes.signals", "probes.response_images",
        *(f"trainer.{key}" for key in (
            "device", "threads", "graph", "compile", "concurrent", "loader_workers", "launcher",
            "timeout_seconds", "allow_new_world_size", "checkpoint_every_iters",
        )),
    }  # fmt: skip


def test_a_run_logged_before_a_key_existed_is_still_the_same_run():
    config = compose_run(*RUN).as_mapping()
    older = config | {"model": {k: v for k, v in config["model"].items() if k != "stride_in"}}
    del older["probes"]
    assert differences(older, config) == {}
    changed = compose_run(*RUN, "probes.signals=false", "recipe.lr=0.2").as_mapping()
    names = (config["name"], f"{config['name']}-lr0.2")
    assert differences(older, changed) == {"name": names, "recipe.lr": (0.1, 0.2)}
    # What nobody changed is not shown as a change, nor is it another run in Weights & Biases.
    assert run_id(older) == run_id(config)
    assert _change(logged(older), logged(changed)) == "recipe.lr=0.2"
