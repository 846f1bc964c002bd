from client_container.holdings import Holdings
from client_container.protocol import Chunk, Job

JOB = Job(id="t/main", image=None, action=("p",), env={}, timeout_s=1.0, rows=None)


def chunk(name, token="T"):
    return Chunk(id=name, run=0, input="{}", job=JOB, ticket="x", token=token)


def claimed(*names):
    holdings = Holdings()
    holdings.promise("T")
    holdings.claimed("T", [chunk(name) for name in names])
    return holdings


def test_a_token_is_held_from_the_moment_it_is_made_until_its_claim_came_to_nothing():
    holdings = Holdings()

    holdings.promise("T")
    assert holdings.told() == ({"T": 0}, ())
    holdings.claimed("T", [])

    assert holdings.told() == ({}, ())


def test_a_finished_chunk_counts_until_the_server_has_its_result():
    holdings = claimed("a", "b")
    running, _ = holdings.start()

    assert holdings.told() == ({"T": 2}, ("a",))
    holdings.ended(running, kept=True)
    assert holdings.told() == ({"T": 2}, ())
    holdings.settled("T", "a")
    assert holdings.told() == ({"T": 1}, ())


def test_a_dropped_chunk_is_forgotten_and_the_running_one_halted():
    holdings = claimed("a", "b", "c")
    _, halt = holdings.start()

    holdings.drop(["a", "b"])

    assert halt.is_set
    assert holdings.told() == ({"T": 1}, ())


def test_a_lost_chunk_is_not_started_and_a_running_one_goes_on():
    holdings = claimed("a", "b")
    running, halt = holdings.start()

    holdings.lose(["a", "b"])

    assert not halt.is_set
    assert holdings.told() == ({}, ())
    holdings.ended(running, kept=True)
    assert holdings.start() is None


def test_claiming_again_reconciles_what_is_held_with_what_the_server_lists():
    holdings = claimed("a", "b", "c")
    running, _ = holdings.start()
    holdings.ended(running, kept=True)
    holdings.settled("T", "a")

    fresh = holdings.claimed("T", [chunk("a"), chunk("c"), chunk("d")])

    assert fresh == 1  # d; not a, whose result the server has already
    assert [holdings.start()[0].id for _ in range(2)] == ["c", "d"]
    assert holdings.start() is None


def test_a_token_is_claimed_again_only_when_the_server_knew_the_count_of_now():
    holdings = claimed("a", "b")
    holdings.promise("U")  # no answer yet: the claim in flight will tell
    told, _ = holdings.told()

    holdings.ask_again(["T", "U", "V"], told)
    holdings.ask_again(["T"], {"T": 5})

    assert holdings.next_again() == ("T", 2)
    assert holdings.next_again() is None


def test_the_end_of_a_life_forgets_what_has_not_started_and_lets_the_rest_finish():
    holdings = claimed("a", "b")
    running, halt = holdings.start()

    holdings.end_life()

    assert holdings.told() == ({}, ())
    assert not halt.is_set
    assert holdings.start() is None
    holdings.ended(running, kept=True)
    assert holdings.claimed("T", [chunk("z")]) == 0  # a late answer to the old life


def test_a_closed_client_starts_nothing_and_halts_what_runs():
    holdings = claimed("a", "b")
    running, halt = holdings.start()

    holdings.close()

    assert halt.is_set
    holdings.ended(running, kept=False)
    assert holdings.start() is None
