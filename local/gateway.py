"""Set up what MiniStack does not take from the template: the API's gateway responses."""

from pathlib import Path
from typing import TYPE_CHECKING

from samcli.yamlhelper import yaml_parse

if TYPE_CHECKING:
    from mypy_boto3_apigateway.client import APIGatewayClient

STAGE = "v1"


def put_gateway_responses(client: "APIGatewayClient", rest_api_id: str, template: Path) -> None:
    """Give the deployed API the gateway responses that its definition has."""
    resources = yaml_parse(template.read_text(encoding="utf-8"))["Resources"]
    definition = resources["RelayApi"]["Properties"]["DefinitionBody"]
    for kind, response in definition["x-amazon-apigateway-gateway-responses"].items():
        status = {"statusCode": str(response["statusCode"])} if "statusCode" in response else {}
        client.put_gateway_response(
            restApiId=rest_api_id,
            responseType=kind,
            responseParameters=response["responseParameters"],
            responseTemplates=response["responseTemplates"],
            **status,
        )
    client.create_deployment(restApiId=rest_api_id, stageName=STAGE)
