"""Distances, routes and places, from recorded answers of Bing Maps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lagentlike.actions import AsyncBINGMap, BINGMap
from lagentlike.errors import InvalidArgument
from lagentlike.schema import ActionStatusCode

from .calls import call, value
from .web_site import Answer, recorded, Site


@pytest.fixture
def site() -> Iterator[Site]:
    routes = {
        "/Routes/Driving": "map_route.json",
        "/Locations": "map_locations.json",
        "/LocalSearch": "map_nearby.json",
    }
    with Site({path: recorded(name) for path, name in routes.items()}) as site:
        yield site


@pytest.fixture(params=[BINGMap, AsyncBINGMap])
def maps(request: pytest.FixtureRequest, site: Site) -> Iterator[BINGMap]:
    tool = request.param("hush", endpoint=f"{site.url}/")
    yield tool
    tool.close()


def test_distances_and_routes(maps: BINGMap, site: Site) -> None:
    assert value(maps, "get_distance", start="München & co", end="Freising") == {"distance": 37.412}
    assert value(maps, "get_route", start="a", end="b") == {
        "route": ["Depart Teapot Street toward Lid Lane", "Arrive at Kettle Square"]
    }
    assert site.asked[0].query == {"wp.0": "München & co", "wp.1": "Freising", "distanceUnit": "km", "key": "hush"}


def test_places(maps: BINGMap, site: Site) -> None:
    assert value(maps, "get_coordinates", location="Tower of London") == {"latitude": 51.508, "longitude": -0.076}
    near = value(maps, "search_nearby", search_term="tea", places="Tower of London", radius=300)
    assert near["place"][0] == {"name": "Tea House", "address": "1 Pot St, London"}
    assert len(near["place"]) == 5
    assert site.asked[-1].query["userCircularMapView"] == "51.508,-0.076,300"
    value(maps, "search_nearby", search_term="tea", latitude=1.5, longitude=-2.0)
    assert site.asked[-1].query["userCircularMapView"] == "1.5,-2.0,5000"
    assert call(maps, "search_nearby", search_term="tea", latitude=91).state == ActionStatusCode.ARGS_ERROR


def test_errors(maps: BINGMap, site: Site) -> None:
    site.routes |= dict.fromkeys(site.routes, recorded("map_none.json"))
    assert "there is no route from 'a' to 'b'" in call(maps, "get_distance", start="a", end="b").text
    assert "there is no location 'nowhere'" in call(maps, "search_nearby", search_term="tea", places="nowhere").text
    for answer, said in [
        (recorded("map_401.json", 401), "Bing Maps does not take the key (401: Access was denied"),
        (Answer(b"{}"), "in an unknown form: no resourceSets"),
        (Answer(b'{"resourceSets": [{"resources": [{"travelDistance": "far"}]}]}'), "'far' in the place of a number"),
    ]:
        site.routes["/Routes/Driving"] = answer
        returned = call(maps, "get_distance", start="a", end="b")
        assert (returned.state, said in returned.text) == (ActionStatusCode.HTTP_ERROR, True), returned.text


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BING_MAP_KEY", raising=False)
    with pytest.raises(InvalidArgument, match="set BING_MAP_KEY"):
        BINGMap()
    monkeypatch.setenv("BING_MAP_KEY", "hush")
    assert BINGMap().endpoint == "https://dev.virtualearth.net/REST/v1"
