"""Layer responses on request from a checkpoint."""

from ranks import StopAt, do, small_job
from resnet_repro import responses
from test_evaluation_commands import done, refused


def test_responses_of_a_run_that_is_not_finished(tmp_path):
    job = small_job(tmp_path, "probes.response_images=500")
    assert do(job, StopAt(5)) == "preempted"
    assert job.folder.table("responses") == []
    output = done(responses, f"run={job.folder.path}", "images=100", "threads=1")
    assert "100 test images, iteration 5" in output
    assert len(job.folder.table("responses")) == 7
    assert do(job) == "finished"  # the run resumes as if nothing had happened
    finished = job.folder.table("responses")
    done(responses, f"run={job.folder.path}", "images=500", "threads=1")
    assert job.folder.table("responses") == finished  # the synthetic set has 500 test images


def test_refusals_are_one_line(tmp_path):
    for args, message in (
        (("images=5",), "run is not set"),
        (("run=nowhere", "images=0"), "images=0: must be an integer >= 1"),
        ((f"run={tmp_path}",), "config.yaml: cannot be read"),
    ):
        code, output = refused(*args, command=responses)
        assert (code, message in output) == (2, True), output
