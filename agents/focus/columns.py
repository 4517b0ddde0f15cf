"""The columns of FOCUS 1.4 in our rows, and of 1.2 where they differ. Columns that are always null are kept, because
rules of other columns refer to them.
"""

from __future__ import annotations

from typing import Literal

Version = Literal["1.2", "1.4"]
Kind = Literal["text", "decimal", "time", "json"]
VERSIONS: tuple[Version, ...] = ("1.4", "1.2")
DECIMAL_PRECISION, DECIMAL_SCALE = 38, 18
"""Of Parquet's decimals."""
ALWAYS_NULL = (
    "ResourceId", "ResourceName", "ResourceType", "RegionId", "RegionName", "AvailabilityZone", "CapacityReservationId",
    "CapacityReservationStatus", "CommitmentDiscountCategory", "CommitmentDiscountId", "CommitmentDiscountName",
    "CommitmentDiscountQuantity", "CommitmentDiscountStatus", "CommitmentDiscountType", "CommitmentDiscountUnit",
)  # fmt: skip
_PROVIDERS: dict[Version, tuple[str, ...]] = {
    "1.4": ("ServiceProviderName", "HostProviderName"),
    "1.2": ("ProviderName", "PublisherName"),
}
_COMMON = (
    "BillingAccountId", "BillingAccountName", "BillingAccountType", "BillingCurrency", "BillingPeriodStart",
    "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd", "ChargeCategory", "ChargeClass", "ChargeFrequency",
    "ChargeDescription", "ServiceCategory", "ServiceSubcategory", "ServiceName", "InvoiceIssuerName", "SkuId",
    "SkuPriceId", "SkuMeter", "SkuPriceDetails", "PricingCategory", "PricingQuantity", "PricingUnit",
    "ConsumedQuantity", "ConsumedUnit", "ListUnitPrice", "ContractedUnitPrice", "ListCost", "ContractedCost",
    "EffectiveCost", "BilledCost", "PricingCurrency", "PricingCurrencyListUnitPrice",
    "PricingCurrencyContractedUnitPrice", "PricingCurrencyEffectiveCost", "SubAccountId", "SubAccountName",
    "SubAccountType", "Tags", "InvoiceId",
)  # fmt: skip
_OWN = (
    "x_SessionId", "x_Client", "x_ConnectionId", "x_Model", "x_TokenKind", "x_ServiceTier", "x_TierKnown",
    "x_PrincipalId", "x_CredentialId", "x_PriceBook", "x_CostBasis", "x_AsOf",
)  # fmt: skip
DECIMALS = frozenset(
    {
        "PricingQuantity", "ConsumedQuantity", "ListUnitPrice", "ContractedUnitPrice", "ListCost", "ContractedCost",
        "EffectiveCost", "BilledCost", "PricingCurrencyListUnitPrice", "PricingCurrencyContractedUnitPrice",
        "PricingCurrencyEffectiveCost", "CommitmentDiscountQuantity",
    }
)  # fmt: skip
TIMES = frozenset({"BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd", "x_AsOf"})
COSTS = ("ListCost", "ContractedCost", "EffectiveCost", "BilledCost")


def columns(version: Version = "1.4") -> tuple[str, ...]:
    """Return the columns in their order."""
    later = ("InvoiceDetailId",) if version == "1.4" else ()
    return (*_COMMON, *_PROVIDERS[version], *later, *ALWAYS_NULL, *_OWN)


def provider_columns(version: Version) -> tuple[str, ...]:
    """Return the columns that name who provides a service, without who sends the invoice."""
    return _PROVIDERS[version]
