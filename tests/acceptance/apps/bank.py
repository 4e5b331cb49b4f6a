"""A handler that decides on what it reads, and one whose work on an entity takes its time."""

import asyncio

import msgspec

from event_router import Event, EventHandler, Identifier, Reject, StateTransaction, on


class Spend(msgspec.Struct):
    """Money leaves an account."""

    account_id: Identifier
    cents: int


class BankHandler(EventHandler):
    """Keeps balances that never fall below nothing."""

    domain = "bank"

    @on("spend")
    async def spend(self, event: Event[Spend], state: StateTransaction) -> None:
        """Take the money, if there is so much."""
        account = state.entity("account", event.data.account_id)
        balance = int(await account.get("balance") or 0)
        if balance < event.data.cents:
            raise Reject(f"{balance} cents are too little")
        account.set(balance=balance - event.data.cents)

    @on("audit")
    async def audit(self, event: Event[Spend], state: StateTransaction) -> None:
        """Count the audit of an account, which takes a while each time."""
        account = state.entity("account", event.data.account_id)
        audits = int(await account.get("audits") or 0)
        await asyncio.sleep(0.1)
        account.set(audits=audits + 1)
