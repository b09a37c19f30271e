"""Distances, routes and places by Bing Maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from ..errors import ToolError
from .base import tool_api
from .web_action import awaited, blocking, WebAction
from .web_service import as_list, as_object, as_text, WebService

__all__ = ["AsyncBINGMap", "BINGMap"]

BING_MAPS = WebService("Bing Maps", "BING_MAP_KEY")
MAX_PLACES = 5


class BINGMap(WebAction):
    """Look up distances, routes and places on a map.

    It asks the REST services of Bing Maps. Microsoft closed them for free accounts in June 2025 and closes them for all
    in June 2028; `endpoint` may be that of a service which speaks the same.

    Args:
        key: the key; `BING_MAP_KEY` of the environment by default.
        timeout: seconds for a request.
        description: what models are told, in place of the docstrings.
        name: its name.
        endpoint: the service's address.
    """

    def __init__(
        self,
        key: str | None = None,
        timeout: float = 15,
        description: Mapping[str, Any] | str | None = None,
        name: str | None = None,
        endpoint: str = "https://dev.virtualearth.net/REST/v1",
    ) -> None:
        super().__init__(timeout, description, name)
        self._key = BING_MAPS.key(key, "key")
        self.endpoint = endpoint.rstrip("/")

    @tool_api(explode_return=True)
    @blocking
    async def get_distance(self, start: str, end: str) -> dict[str, float]:
        """Get the distance between two locations in km.

        Args:
            start: The start location.
            end: The end location.

        Returns:
            distance information
                * distance: the distance by car in km.
        """
        return {"distance": _number((await self._route(start, end)).get("travelDistance"))}

    @tool_api(explode_return=True)
    @blocking
    async def get_route(self, start: str, end: str) -> dict[str, list[str]]:
        """Get the route between two locations.

        Args:
            start: The start location.
            end: The end location.

        Returns:
            route information
                * route: the route, a list of actions.
        """
        route = await self._route(start, end)
        items = [item for leg in as_list(route.get("routeLegs")) for item in as_list(leg.get("itineraryItems"))]
        actions = [as_text(as_object(item.get("instruction")).get("text")) for item in items]
        return {"route": [action for action in actions if action]}

    @tool_api(explode_return=True)
    @blocking
    async def get_coordinates(self, location: str) -> dict[str, float]:
        """Get the coordinates of a location.

        Args:
            location: The location whose coordinates are wanted.

        Returns:
            coordinates information
                * latitude: the latitude of the location.
                * longitude: the longitude of the location.
        """
        latitude, longitude = await self._coordinates(location)
        return {"latitude": latitude, "longitude": longitude}

    @tool_api(explode_return=True)
    @blocking
    async def search_nearby(
        self,
        search_term: str,
        places: str = "unknown",
        latitude: Annotated[float, Field(ge=-90, le=90)] = 0.0,
        longitude: Annotated[float, Field(ge=-180, le=180)] = 0.0,
        radius: Annotated[int, Field(ge=1)] = 5000,
    ) -> dict[str, list[dict[str, str]]]:
        """Search for places nearby a location, within a given radius.

        The location is given by its name, or by latitude and longitude.

        Args:
            search_term: What is looked for.
            places: The name of the location.
            latitude: The latitude of the location.
            longitude: The longitude of the location.
            radius: Radius in meters.

        Returns:
            places information
                * place: the list of places, each a dict with name and address, at most 5 places.
        """
        if places != "unknown":
            latitude, longitude = await self._coordinates(places)
        params = {"query": search_term, "userCircularMapView": f"{latitude},{longitude},{radius}"}
        found = await self._ask("LocalSearch", {**params, "maxResults": str(MAX_PLACES)})
        return {
            "place": [
                {
                    "name": as_text(place.get("name")),
                    "address": as_text(as_object(place.get("Address")).get("formattedAddress")),
                }
                for place in found[:MAX_PLACES]
            ]
        }

    async def _route(self, start: str, end: str) -> Mapping[str, Any]:
        found = await self._ask("Routes/Driving", {"wp.0": start, "wp.1": end, "distanceUnit": "km"})
        if not found:
            raise ToolError(f"there is no route from {start!r} to {end!r}")
        return found[0]

    async def _coordinates(self, location: str) -> tuple[float, float]:
        found = await self._ask("Locations", {"query": location})
        if not found:
            raise ToolError(f"there is no location {location!r}")
        point = as_object(found[0].get("point")).get("coordinates")
        if not isinstance(point, list) or len(point) != 2:
            raise BING_MAPS.bad("no coordinates")
        return _number(point[0]), _number(point[1])

    async def _ask(self, path: str, params: Mapping[str, str]) -> list[Mapping[str, Any]]:
        """The resources of the answer; none where Bing Maps finds nothing."""
        address = f"{self.endpoint}/{path}"
        params = {**params, "key": self._key}
        answer = await BING_MAPS.ask(self._client, "GET", address, params=params, secrets=[self._key])
        sets = as_object(answer).get("resourceSets")
        if not isinstance(sets, list):
            raise BING_MAPS.bad("no resourceSets")
        return [resource for one in as_list(sets) for resource in as_list(one.get("resources"))]


class AsyncBINGMap(BINGMap):
    """Look up distances, routes and places on a map, awaited; see `BINGMap`."""

    get_distance = awaited(BINGMap.get_distance)  # type: ignore[assignment]  # awaited
    get_route = awaited(BINGMap.get_route)  # type: ignore[assignment]  # awaited
    get_coordinates = awaited(BINGMap.get_coordinates)  # type: ignore[assignment]  # awaited
    search_nearby = awaited(BINGMap.search_nearby)  # type: ignore[assignment]  # awaited


def _number(value: Any) -> float:
    """The value if it is a number.

    Raises:
        BadAnswer: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BING_MAPS.bad(f"{value!r:.40} in the place of a number")
    return float(value)
