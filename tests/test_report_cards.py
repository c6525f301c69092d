import yaml

from drive.report.cards import LIMITS, model_card


def card(**changes):
    given = {
        "name": "tiny-drive",
        "policy_config": {"hidden": 128, "weights": ""},
        "what": "A small model.",
        "command": "drive train stage=sft",
        "data_fingerprint": "abc123",
        "metrics": {"pdms_v1_1 (0-100), embedded test": 81.23456, "scenes": 200, "a|b": "x"},
    }
    return model_card(**{**given, **changes})


def test_front_matter_is_yaml_that_names_the_licence():
    _, front, body = card().split("---\n", 2)
    found = yaml.safe_load(front)
    assert found["license"] == "apache-2.0" and "autonomous-driving" in found["tags"]
    assert body.lstrip().startswith("# tiny-drive")


def test_card_tells_command_data_numbers_and_settings():
    text = card()
    assert "```sh\ndrive train stage=sft\n```" in text and "`abc123`" in text
    assert "| pdms_v1_1 (0-100), embedded test | 81.23 |" in text and "| scenes | 200 |" in text and "| a\\|b | x |" in text
    settings = text.split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(settings) == {"hidden": 128, "weights": ""}
    assert LIMITS in text and LIMITS not in card(limits="Only on toys.")


def test_card_without_metrics_says_so():
    assert "None was measured." in card(metrics={})
