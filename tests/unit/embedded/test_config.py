"""The broker's configuration, and that Java reads it as intended."""

from hypothesis import given
from hypothesis import strategies as st

from tallystream.streams.embedded.config import BrokerConfig, Listener, render


def parse(text: str) -> dict[str, str]:
    """Read a properties file by Java's rules (java.util.Properties.load), with one property for each line."""
    properties = {}
    for line in text.split("\n"):
        parts, target, index = ["", ""], 0, 0
        while index < len(line):
            character = line[index]
            if character == "\\":
                index += 1
                escape = line[index]
                if escape == "u":
                    parts[target] += chr(int(line[index + 1 : index + 5], 16))
                    index += 4
                else:
                    parts[target] += {"n": "\n", "r": "\r", "t": "\t"}.get(escape, escape)
            elif target == 0 and character in "=: ":
                target = 1
                while index + 1 < len(line) and line[index + 1] == " ":
                    index += 1
            else:
                parts[target] += character
            index += 1
        if line:
            properties[parts[0]] = parts[1].encode("utf-16", "surrogatepass").decode("utf-16")
    return properties


CONTROLLER = Listener(9300, "CONTROLLER")
texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00\x0b\x0c"))


@given(st.dictionaries(st.from_regex(r"[a-z][a-z.]{0,20}", fullmatch=True), texts))
def test_java_reads_back_the_written_properties(properties: dict[str, str]) -> None:
    assert parse(render(properties)) == properties


def test_listeners_are_advertised_on_loopback() -> None:
    sasl = Listener(
        9301, "CLIENTS", "SASL_SSL", {"ssl.keystore.location": "/k.p12", "sasl.enabled.mechanisms": "PLAIN"}
    )
    properties = BrokerConfig(CONTROLLER, (Listener(9299), sasl)).properties()
    assert properties["advertised.listeners"] == "PLAINTEXT://127.0.0.1:9299,CLIENTS://127.0.0.1:9301"
    assert properties["listeners"].endswith(",CONTROLLER://127.0.0.1:9300")
    assert "CLIENTS:SASL_SSL" in properties["listener.security.protocol.map"].split(",")
    assert properties["inter.broker.listener.name"] == "PLAINTEXT"
    assert properties["listener.name.clients.ssl.keystore.location"] == "/k.p12"
    assert properties["listener.name.clients.sasl.enabled.mechanisms"] == "PLAIN"


def test_broker_logs_in_to_itself() -> None:
    own = Listener(9299, "CLIENTS", "SASL_PLAINTEXT", {"x": "1"}, mechanism="SCRAM-SHA-512")
    controller = Listener(9300, "CONTROLLER", "SASL_PLAINTEXT", {"y": "2"}, mechanism="PLAIN")
    properties = BrokerConfig(controller, (own,)).properties()
    assert properties["listener.security.protocol.map"] == "CLIENTS:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT"
    assert properties["sasl.mechanism.inter.broker.protocol"] == "SCRAM-SHA-512"
    assert properties["sasl.mechanism.controller.protocol"] == "PLAIN"
    assert properties["listener.name.clients.x"] == "1"
    assert properties["listener.name.controller.y"] == "2"


def test_single_node_settings_need_no_replicas_and_keep_offsets() -> None:
    properties = BrokerConfig(CONTROLLER, (Listener(9299),)).properties()
    factors = {name: value for name, value in properties.items() if name.endswith(("replication.factor", "min.isr"))}
    assert len(factors) == 5
    assert set(factors.values()) == {"1"}
    assert int(properties["offsets.retention.minutes"]) == 365 * 24 * 60
    assert int(properties["group.min.session.timeout.ms"]) <= 6000
    assert properties["auto.create.topics.enable"] == "false"


def test_overrides_take_precedence() -> None:
    config = BrokerConfig(CONTROLLER, (Listener(9299),), {"broker.session.timeout.ms": "9000"})
    assert config.properties()["broker.session.timeout.ms"] == "9000"
