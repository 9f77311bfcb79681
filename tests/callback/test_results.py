import os
import pickle

from lightning_lottery.callback.results import Mailbox


def test_nothing_is_sent_within_one_process(tmp_path):
    box = Mailbox()
    box.send(tmp_path)
    assert box.receive() is None


def test_a_copy_in_another_process_sends_the_run_folder_once(tmp_path):
    box = Mailbox()
    if not (child := os.fork()):
        copy = pickle.loads(pickle.dumps(box))
        copy.send(tmp_path)
        os._exit(0 if copy.receive() is None else 1)  # only for the owner
    assert os.waitpid(child, 0)[1] == 0
    assert box.receive() == tmp_path
    assert box.receive() is None


def test_a_deleted_folder_is_not_received(tmp_path):
    box = Mailbox()
    if not (child := os.fork()):
        box.send(tmp_path / "gone")
        os._exit(0)
    os.waitpid(child, 0)
    assert box.receive() is None
